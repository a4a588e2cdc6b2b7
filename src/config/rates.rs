//! Reader of `[[limit]]`: limits of the principals of a role, and of addresses.

use super::value::Reader;
use diorama_gateway::{RateLimit, RateSubject};

/// Reads one limit. `others` are those before it.
pub(super) fn read(reader: Reader<'_>, others: &[RateLimit]) -> RateLimit {
    let role = reader.text("role").filter(|role| role != "*");
    let per = match reader.word("per", &["principal", "address"]) {
        Some("address") => RateSubject::Address,
        _ => RateSubject::Principal,
    };
    let burst = reader.count("burst", 1..=1_000_000_000);
    let limit = RateLimit {
        requests: reader.rate("requests", false),
        burst: burst.map(|burst| burst as u64),
        writes: reader.rate("writes", false),
        sockets: reader.count("sockets", 1..=1_000_000),
        live_queries: reader.count("live_queries", 1..=1_000_000),
        export: reader.rate("export", true),
        ..RateLimit::new(role, per)
    };
    check(&reader, &limit, others);
    reader.finish();
    limit
}

fn check(reader: &Reader<'_>, limit: &RateLimit, others: &[RateLimit]) {
    if limit.burst.is_some() && limit.requests.is_none() && reader.position("requests").is_none() {
        let at = reader.position("burst").unwrap_or(reader.at);
        reader.problem(at, "limit.burst requires requests, whose burst it is");
    }
    let before = others.iter().filter(|other| other.per == limit.per);
    if before.clone().any(|other| other.role.is_none() || other.role == limit.role) {
        let at = reader.position("role").unwrap_or(reader.at);
        reader.problem(at, "no request reaches this [[limit]]: the first one that fits the role applies, and one before fits all of its callers");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use crate::config::{AuditSpec, Config};
    use diorama_core::journal::AuditLimits;
    use diorama_gateway::{Rate, RateLimit, RateSubject};

    fn read(text: &str) -> Result<Config, String> {
        let text = format!("{text}\n[dio.a]\nsource = {{ csv = \"a.csv\" }}\n");
        Config::parse(&text, Path::new("diorama.toml"), &|_| None).map_err(|error| error.to_string())
    }

    #[test]
    fn limits_are_read_in_their_order() {
        let text = "[[limit]]\nrole = \"member\"\nrequests = \"100/s\"\nburst = 200\nwrites = \"10/min\"\nsockets = 20\n\
            live_queries = 10\nexport = \"100MiB/h\"\n[[limit]]\nrole = \"*\"\n[[limit]]\nper = \"address\"\nsockets = 3";
        let rate = |amount, seconds| Some(Rate { amount, period: Duration::from_secs(seconds) });
        let first = RateLimit {
            requests: rate(100, 1),
            burst: Some(200),
            writes: rate(10, 60),
            sockets: Some(20),
            live_queries: Some(10),
            export: rate(100 << 20, 3_600),
            ..RateLimit::new(Some("member".into()), RateSubject::Principal)
        };
        let others = RateLimit::new(None, RateSubject::Principal);
        let last = RateLimit { sockets: Some(3), ..RateLimit::new(None, RateSubject::Address) };
        assert_eq!(read(text).unwrap().limits, [first, others, last]);
        assert_eq!(read("").unwrap().limits, []);
    }

    #[test]
    fn limits_without_a_meaning_are_refused() {
        for (wrong, says) in [
            ("[[limit]]\nrequests = \"100\"", "limit.requests must be a rate like \"100/s\""),
            ("[[limit]]\nrequests = \"0/s\"", "limit.requests must be a rate"),
            ("[[limit]]\nrequests = \"5/day\"", "limit.requests must be a rate"),
            ("[[limit]]\nexport = \"5MB/s\"", "limit.export must be a rate like \"10MiB/s\""),
            ("[[limit]]\nburst = 5", "limit.burst requires requests"),
            ("[[limit]]\nper = \"session\"", "principal, address"),
            ("[[limit]]\n[[limit]]\nrole = \"member\"", "no request reaches this [[limit]]"),
            ("[[limit]]\nrequest = \"5/s\"", "did you mean requests?"),
        ] {
            let error = read(wrong).unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_audit_log_has_bounds_and_needs_a_journal() {
        let audit = |text| read(text).map(|config| config.audit);
        assert_eq!(audit(""), Ok(AuditSpec { enabled: true, limits: AuditLimits::default() }));
        let limits = AuditLimits { keep: Duration::from_secs(7 * 86_400), bytes: 2 << 20 };
        let text = "[audit]\nenabled = false\nkeep = \"7d\"\nkeep_bytes = \"2MiB\"";
        assert_eq!(audit(text), Ok(AuditSpec { enabled: false, limits }));
        assert!(audit("[audit]\nkeep = \"1m\"").unwrap_err().contains("audit.keep must be a time from"));
        let memory = audit("[lens]\ncache = \"memory\"\n[audit]\nenabled = true").unwrap_err();
        assert!(memory.contains("requires a journal on disk"), "{memory}");
        assert!(audit("[lens]\ncache = \"memory\"\n[audit]\nkeep = \"1d\"").is_ok());
    }
}
