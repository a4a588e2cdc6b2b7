//! [`Policy`]: the access rules of all resources, compiled, with the grants of callers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::describe::Permission;
use super::grant::Grant;
use super::principal::{Identity, Principal};
use super::rule::{Allow, Rule};
use super::verb::{Verb, Verbs};
use diorama_core::vista::Schema;
use diorama_core::vista::query::nearest;

/// Maximum number of grants in a generation of the cache. An idle grant takes a few KiB.
const MOST_GRANTS: usize = 4_096;

/// Access rules of all resources. Without rules, every caller may do everything that its credential is good for.
#[derive(Debug, Default)]
pub struct Policy {
    /// Compiled rules by resource; `None` without rules.
    rules: Option<HashMap<Arc<str>, Vec<Rule>>>,
    /// Rules as they were written.
    written: Vec<Allow>,
    /// Set once the policy was replaced.
    retired: Arc<AtomicBool>,
    grants: RwLock<Generations>,
}

/// Cached grants since the last change of generations, and those before it.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<GrantKey, CachedGrant>,
    old: HashMap<GrantKey, CachedGrant>,
}

/// Addresses of the schema of a resource and of an identity (zero for anonymous callers). Both are held by the cached grant, so that no
/// other one can take the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct GrantKey(usize, usize);

#[derive(Clone, Debug)]
struct CachedGrant {
    _schema: Arc<Schema>,
    _identity: Option<Arc<Identity>>,
    grant: Arc<Grant>,
}

impl Policy {
    /// Compiles `rules` for the resources with these names and schemas.
    ///
    /// # Errors
    /// Every mistake, with the number of its rule, from 1.
    pub fn new<'s>(
        rules: &[Allow],
        resources: impl IntoIterator<Item = (&'s Arc<str>, &'s Arc<Schema>)>,
    ) -> Result<Policy, Vec<(usize, String)>> {
        if rules.is_empty() {
            return Ok(Policy::default());
        }
        let resources: Vec<_> = resources.into_iter().collect();
        let mut problems = Vec::new();
        for (at, allow) in rules.iter().enumerate() {
            if allow.dio != "*" && !resources.iter().any(|(name, _)| ***name == *allow.dio) {
                let meant = nearest(&allow.dio, resources.iter().map(|(name, _)| &***name));
                let hint = meant.map(|meant| format!("; did you mean {meant:?}?")).unwrap_or_default();
                problems.push((at + 1, format!("there is no resource {:?}{hint}", allow.dio)));
            }
            for (earlier, other) in rules[..at].iter().enumerate() {
                if let Some(verb) = other.contradicts(allow) {
                    let first = earlier + 1;
                    let detail = format!(
                        "it gives {:?} other columns to {verb} of {:?} than rule {first}: give both the same columns",
                        allow.role, allow.dio
                    );
                    problems.push((at + 1, detail));
                }
            }
        }
        let mut compiled: HashMap<Arc<str>, Vec<Rule>> = HashMap::new();
        for (name, schema) in resources {
            let own = compiled.entry(Arc::clone(name)).or_default();
            for (at, allow) in rules.iter().enumerate().filter(|(_, allow)| allow.is_about(name)) {
                let mut found = Vec::new();
                own.extend(Rule::compile(allow, schema, &mut found));
                problems.extend(found.into_iter().map(|detail| (at + 1, format!("resource {name:?}: {detail}"))));
            }
        }
        if problems.is_empty() {
            Ok(Policy { rules: Some(compiled), written: rules.to_vec(), ..Policy::default() })
        } else {
            Err(problems)
        }
    }

    /// Returns true if the policy was made of these rules.
    pub(crate) fn is_of(&self, rules: &[Allow]) -> bool {
        self.written == rules
    }

    /// Marks all grants as those of old rules, which ends the event sockets and streams that have them.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Returns true if there are rules, so that answers depend on the caller.
    pub fn has_rules(&self) -> bool {
        self.rules.is_some()
    }

    /// Returns what `principal` may do with the resource `name`.
    pub(crate) fn grant(&self, name: &str, schema: &Arc<Schema>, principal: &Principal) -> Arc<Grant> {
        let identity = principal.identity();
        let key = GrantKey(Arc::as_ptr(schema) as usize, identity.map_or(0, |identity| Arc::as_ptr(identity) as usize));
        let known = {
            let grants = self.grants.read();
            if let Some(known) = grants.young.get(&key) {
                return Arc::clone(&known.grant);
            }
            grants.old.get(&key).cloned()
        };
        // Made without the lock, which other requests wait for.
        let cached = known.unwrap_or_else(|| {
            let grant = Arc::new(self.make(name, schema, principal));
            CachedGrant { _schema: Arc::clone(schema), _identity: identity.cloned(), grant }
        });
        let mut grants = self.grants.write();
        if grants.young.len() >= MOST_GRANTS {
            grants.old = std::mem::take(&mut grants.young);
        }
        Arc::clone(&grants.young.entry(key).or_insert(cached).grant)
    }

    /// Returns what each rule permits `principal` to do with the resource `name`; `None` if no rule restricts it.
    pub(crate) fn permissions(&self, name: &str, schema: &Schema, principal: &Principal) -> Option<Vec<Permission>> {
        if principal.identity().is_some_and(|identity| identity.unrestricted) {
            return None;
        }
        let rules = self.rules.as_ref()?.get(name).map(Vec::as_slice).unwrap_or_default();
        let own = rules.iter().filter(|rule| rule.is_about(principal));
        Some(own.map(|rule| Permission::of(rule, principal, schema)).collect())
    }

    /// Returns true if `principal` may do `verb` with every resource.
    pub(crate) fn permits_everywhere(&self, verb: Verb, principal: &Principal) -> bool {
        let most = principal.identity().map_or(Verbs::ALL, |identity| identity.verbs);
        let by_rule = |rules: &Vec<Rule>| rules.iter().any(|rule| rule.is_about(principal) && rule.can.has(verb));
        let free = principal.identity().is_some_and(|identity| identity.unrestricted);
        most.has(verb) && (free || self.rules.as_ref().is_none_or(|rules| rules.values().all(by_rule)))
    }

    fn make(&self, name: &str, schema: &Arc<Schema>, principal: &Principal) -> Grant {
        let most = principal.identity().map_or(Verbs::ALL, |identity| identity.verbs);
        let free = principal.identity().is_some_and(|identity| identity.unrestricted);
        let grant = match &self.rules {
            Some(rules) if !free => {
                let own = rules.get(name).map(Vec::as_slice).unwrap_or_default();
                Grant::by_rules(own, principal, schema)
            }
            _ => Grant::unrestricted(schema, most),
        };
        grant.until(&self.retired)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use diorama_core::record::CborValue;
    use diorama_core::vista::{Column, ColumnType, Query, WriteKind};

    fn orders() -> (Arc<str>, Arc<Schema>) {
        let columns = [
            ("id", ColumnType::String),
            ("org_id", ColumnType::Integer),
            ("status", ColumnType::String),
            ("total", ColumnType::Decimal),
        ];
        let columns = columns.map(|(name, ty)| Column::new(name, ty)).to_vec();
        ("orders".into(), Arc::new(Schema::new("id", columns)))
    }

    fn allow(role: &str, can: &[Verb], filter: &str) -> Allow {
        let can = can.iter().copied().collect();
        Allow { role: role.into(), dio: "orders".into(), can, filter: filter.into(), check: None, columns: None }
    }

    fn member(org: i64) -> Principal {
        let claims = CborValue::Map(vec![("org_id".into(), org.into())]);
        let (name, role, verbs) = (format!("key:{org}").into(), "member".into(), Verbs::ALL);
        Principal::from(Arc::new(Identity { name, role, claims, verbs, unrestricted: false, expires: None }))
    }

    fn policy(rules: &[Allow]) -> Result<Policy, Vec<(usize, String)>> {
        let (name, schema) = orders();
        Policy::new(rules, [(&name, &schema)])
    }

    #[test]
    fn without_rules_everything_is_permitted_and_with_one_nothing_else_is() {
        let (name, schema) = orders();
        let open = Policy::default().grant(&name, &schema, &Principal::anonymous());
        assert!(open.is_unrestricted() && open.verbs() == Verbs::ALL && open.bounds(WriteKind::Replace).is_none());
        let closed = policy(&[allow("member", &[Verb::Read], "org_id=eq.{claims.org_id}")]).unwrap();
        let grant = |principal: &Principal| closed.grant(&name, &schema, principal);
        assert_eq!(grant(&Principal::anonymous()).verbs(), Verbs::NONE);
        assert_eq!(grant(&member(7)).verbs().iter().collect::<Vec<_>>(), [Verb::Read]);
        assert!(!grant(&member(7)).view(Verb::Read).has_all_rows());
        assert_ne!(grant(&member(7)).view(Verb::Read).id(), grant(&member(8)).view(Verb::Read).id());
        assert_eq!(grant(&member(7)).view(Verb::Read).id(), grant(&member(7)).view(Verb::Read).id());
    }

    #[test]
    fn a_grant_is_made_once_for_an_identity() {
        let (name, schema) = orders();
        let rules = policy(&[allow("*", &[Verb::Read], "org_id=eq.{claims.org_id}")]).unwrap();
        let (one, other) = (member(7), member(7));
        assert!(Arc::ptr_eq(&rules.grant(&name, &schema, &one), &rules.grant(&name, &schema, &one.clone())));
        assert!(!Arc::ptr_eq(&rules.grant(&name, &schema, &one), &rules.grant(&name, &schema, &other)));
    }

    #[test]
    fn every_mistake_is_told_with_the_number_of_its_rule() {
        let columns = |names: &[&str]| Some(names.iter().map(|name| name.to_string()).collect());
        let rules = [
            allow("member", &[Verb::Read], "orgid=eq.{claims.org_id}"),
            allow("member", &[Verb::Insert], "org_id=eq.{org_id}"),
            Allow { dio: "order".into(), ..allow("member", &[Verb::Read], "") },
            Allow { columns: columns(&["id", "totl"]), ..allow("boss", &[Verb::Read], "") },
            Allow { columns: columns(&["id"]), ..allow("*", &[Verb::Insert], "") },
            Allow { check: Some("limit=5".into()), ..allow("guest", &[Verb::Insert], "") },
        ];
        let found = policy(&rules).unwrap_err();
        let has = |rule: usize, text: &str| {
            assert!(found.iter().any(|(at, detail)| *at == rule && detail.contains(text)), "{text}: {found:#?}");
        };
        has(1, "did you mean \"org_id\"?");
        has(2, "{org_id} is not a valid value");
        has(3, "did you mean \"orders\"?");
        has(4, "did you mean \"total\"?");
        has(5, "other columns to insert of \"orders\" than rule 2");
        has(6, "check: ");
        assert_eq!(found.iter().map(|(at, _)| *at).collect::<BTreeSet<_>>().len(), 6, "{found:#?}");
    }

    #[test]
    fn columns_that_are_not_listed_do_not_exist_for_the_caller() {
        let (name, schema) = orders();
        let columns = Some(vec!["status".to_string()]);
        let rules =
            policy(&[Allow { columns, ..allow("member", &[Verb::Read], "org_id=eq.{claims.org_id}") }]).unwrap();
        let grant = rules.grant(&name, &schema, &member(7));
        let view = grant.view(Verb::Read);
        let shown: Vec<_> = view.schema().columns().iter().map(|column| column.name.to_string()).collect();
        assert_eq!(shown, ["id", "status"]);
        let narrowed = view.narrow(Query::default());
        assert_eq!(narrowed.select.len(), 2);
        assert!(view.full_schema().column("org_id").is_some(), "the condition needs it");
        assert_eq!(view.full_schema().searchable().len(), 2);
    }

    #[test]
    fn rules_of_one_verb_add_rows_and_a_missing_claim_adds_none() {
        let (name, schema) = orders();
        let rules =
            [allow("member", &[Verb::Read], "org_id=eq.{claims.org_id}"), allow("*", &[Verb::Read], "status=eq.open")];
        let rules = policy(&rules).unwrap();
        let unclaimed = Identity {
            name: "key:x".into(),
            role: "member".into(),
            claims: CborValue::Map(Vec::new()),
            verbs: Verbs::ALL,
            unrestricted: false,
            expires: None,
        };
        let filter = |principal: &Principal| rules.grant(&name, &schema, principal).view(Verb::Read).filter().clone();
        assert_eq!(filter(&member(7)).tests(), 2);
        assert_eq!(filter(&Principal::from(Arc::new(unclaimed))).tests(), 1);
        assert_eq!(filter(&Principal::anonymous()), diorama_core::vista::Filter::Any(Vec::new()));
    }

    #[test]
    fn a_credential_bounds_the_verbs_of_its_role() {
        let (name, schema) = orders();
        let few = |unrestricted| {
            let (name, role) = ("key:x".into(), "member".into());
            let (claims, verbs) = (CborValue::Map(Vec::new()), Verbs::from_iter([Verb::Read]));
            Principal::from(Arc::new(Identity { name, role, claims, verbs, unrestricted, expires: None }))
        };
        let rules = policy(&[allow("member", &[Verb::Read, Verb::Delete], "")]).unwrap();
        for principal in [few(false), few(true)] {
            assert_eq!(rules.grant(&name, &schema, &principal).verbs().iter().collect::<Vec<_>>(), [Verb::Read]);
            assert_eq!(Policy::default().grant(&name, &schema, &principal).verbs().iter().count(), 1);
            assert!(!rules.permits_everywhere(Verb::Delete, &principal));
        }
        assert!(rules.permits_everywhere(
            Verb::Admin,
            &Principal::from(Arc::new(Identity {
                name: "token".into(),
                role: "admin".into(),
                claims: CborValue::Map(Vec::new()),
                verbs: Verbs::ALL,
                unrestricted: true,
                expires: None,
            }))
        ));
    }
}
