//! The grammar by example, and fuzzing with arbitrary input.

use proptest::prelude::*;

use super::*;
use crate::record::{CborValue, JsonLimits, Record, parse_json, value_to_json};
use crate::vista::query::{Cursor, Filter, MAX_TESTS, OrderTerm, SelectItem};
use crate::vista::{Column as SchemaColumn, ColumnType, Schema};

fn schema() -> Schema {
    let column = SchemaColumn::new;
    Schema::new(
        "id",
        vec![
            column("id", ColumnType::Integer),
            column("name", ColumnType::String),
            column("price", ColumnType::Number),
            column("sold", ColumnType::Boolean),
            column("cost", ColumnType::Decimal),
            column("meta", ColumnType::Json),
            column("limit", ColumnType::Integer),
            column("author.name", ColumnType::String),
        ],
    )
}

fn list(raw: &str) -> ListQuery {
    parse(raw, &schema(), &ParamOptions::default()).unwrap_or_else(|error| panic!("{raw}: {error:?}"))
}

fn where_of(raw: &str) -> String {
    let json = value_to_json(&list(raw).query.filter.to_json());
    let json = String::from_utf8(json).unwrap();
    json.strip_prefix(r#"{"and":["#).and_then(|json| json.strip_suffix("]}")).unwrap_or(&json).to_string()
}

fn error(raw: &str) -> ParamError {
    parse(raw, &schema(), &ParamOptions::default()).map(|list| format!("{raw}: {list:?}")).unwrap_err()
}

fn hit(raw: &str, row: &str) -> bool {
    let CborValue::Map(members) = parse_json(row.as_bytes(), JsonLimits::default()).unwrap() else { panic!() };
    let row: Record = members.into_iter().map(|(key, value)| (key.into_text().unwrap(), value)).collect();
    list(raw).query.matches(&row, &schema())
}

#[test]
fn operators_are_typed_by_their_column() {
    for (raw, filter) in [
        ("price=gte.100", r#"{"price":{"gte":100}}"#),
        ("price=eq.1.5", r#"{"price":{"eq":1.5}}"#),
        ("name=eq.5", r#"{"name":{"eq":"5"}}"#),
        ("sold=is.true", r#"{"sold":{"is":"true"}}"#),
        ("sold=neq.TRUE", r#"{"sold":{"neq":true}}"#),
        ("cost=lt.10.50", r#"{"cost":{"lt":"10.50"}}"#),
        ("name=not.like.a*", r#"{"not":{"name":{"like":"a*"}}}"#),
        ("name=is.not_null", r#"{"not":{"name":{"is":"null"}}}"#),
        ("name=isdistinct.null", r#"{"name":{"isdistinct":null}}"#),
        ("name=imatch.%5Ea.b", r#"{"name":{"imatch":"^a.b"}}"#),
        ("name=in.(a,%22b,c%22,d)", r#"{"name":{"in":["a","b,c","d"]}}"#),
        ("id=in.()", r#"{"id":{"in":[]}}"#),
        ("name=eq.a+b%2Bc", r#"{"name":{"eq":"a b+c"}}"#),
        ("meta-%3Esize=eq.5", r#"{"or":[{"meta->size":{"eq":5}},{"meta->size":{"eq":"5"}}]}"#),
        ("meta->>size=eq.5", r#"{"meta->>size":{"eq":"5"}}"#),
        ("meta=neq.true", r#"{"meta":{"neq":true}},{"meta":{"neq":"true"}}"#),
        ("price=gt.1&price=lt.5", r#"{"price":{"gt":1}},{"price":{"lt":5}}"#),
        (r#""limit"=eq.5"#, r#"{"limit":{"eq":5}}"#),
    ] {
        let filter = filter.to_string();
        let got = where_of(raw);
        assert!(got == filter || got == format!(r#"{{"and":[{filter}]}}"#), "{raw}: {got}");
    }
}

#[test]
fn a_bare_value_is_equality_and_a_repeated_one_is_in() {
    assert_eq!(where_of("price=1"), r#"{"price":{"eq":1}}"#);
    assert_eq!(where_of("id=1&name=x&id=2"), r#"{"id":{"in":[1,2]}},{"name":{"eq":"x"}}"#);
    assert_eq!(where_of("ids=1&ids=2"), r#"{"id":{"in":[1,2]}}"#);
    assert_eq!(where_of("name=a.b"), r#"{"name":{"eq":"a.b"}}"#);
    assert!(hit("meta=5&meta=x", r#"{"meta":"5"}"#));
    assert!(hit("meta=5&meta=x", r#"{"meta":5.0}"#));
    assert!(!hit("meta=5", r#"{"meta":6}"#));
}

#[test]
fn logic_nests_and_quotes() {
    assert_eq!(
        where_of(r#"or=(name.eq.1,and(price.gt.2,"limit".is.null),not.and(name.not.in.(a,"b)"),id.eq.1))"#),
        concat!(
            r#"{"or":[{"name":{"eq":"1"}},{"and":[{"price":{"gt":2}},{"limit":{"is":"null"}}]},"#,
            r#"{"not":{"and":[{"not":{"name":{"in":["a","b)"]}}},{"id":{"eq":1}}]}}]}"#
        )
    );
    assert_eq!(
        where_of(r#"not.or=(name.eq."x,\"y",price.lt.1)"#),
        r#"{"not":{"or":[{"name":{"eq":"x,\"y"}},{"price":{"lt":1}}]}}"#
    );
    assert!(error("or=(name.eq.1").detail.contains("')' is missing at the end"));
    assert!(error("or=(name.eq.1)x").detail.contains("follows"));
    assert!(error("or=(name.1)").detail.contains("not a valid operator"));
    assert!(error("or=(name.eq.\"x)").detail.contains("not closed"));
    assert_eq!(error("or=(nme.eq.1)").code, ParamCode::UnknownColumn);
    assert!(error(&format!("or={}", "(and".repeat(100))).detail.contains("deeply"));
}

#[test]
fn a_quoted_column_name_may_contain_any_characters() {
    let names =
        ["a,b", "a\"b", "\"a\"", "\"", "a.b", " a", "[a]", "(a)", "*", "a:b", "a->b", "a\\b", "a.desc", "limit"];
    let columns = names.iter().map(|name| SchemaColumn::new(*name, ColumnType::String));
    let schema = Schema::new("id", columns.chain([SchemaColumn::new("id", ColumnType::Integer)]).collect());
    let quoted = names.map(|name| format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")));
    let encoded: Vec<_> = quoted.iter().map(|name| segment(name)).collect();
    let raw = format!("select={0}&order={0}&{1}=eq.x", encoded.join(","), encoded.join("=eq.x&"));
    let query = parse(&raw, &schema, &ParamOptions::default()).unwrap_or_else(|error| panic!("{error:?}")).query;
    let selected = query.select.iter().map(|item| match item {
        SelectItem::Column { column, .. } => column.clone(),
        SelectItem::Everything => "everything".to_string(),
    });
    assert_eq!(selected.collect::<Vec<_>>(), names);
    assert_eq!(query.order.iter().map(|term| term.column.clone()).collect::<Vec<_>>(), names);
}

#[test]
fn order_select_limit_and_search_are_read() {
    let parsed =
        list("order=price.desc.nullsfirst,meta->size,name.asc&select=id,n:name,meta->size,*&limit=50&offset=10&q=a+b");
    let order: Vec<_> = parsed.query.order.iter().map(|t| (t.column.as_str(), t.descending, t.nulls_first)).collect();
    assert_eq!(order, [("price", true, true), ("meta->size", false, false), ("name", false, false)]);
    assert_eq!(
        parsed.query.select.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["id", "n:name", "meta->size", "*"]
    );
    assert_eq!((parsed.query.limit, parsed.query.offset), (Some(50), 10));
    assert_eq!(parsed.query.search.as_deref(), Some("a b"));
    assert_eq!(list("order=price&limit=5&after=").query.after, Some(Cursor::start()));
    for refused in ["after=x", "after=&offset=0", "after=&_page=1", "after=&_start=5", "after=&after="] {
        assert_eq!(error(refused).parameter, "after", "{refused}");
    }
    assert!(error("order=price.down").hint.unwrap().contains(".desc"));
    assert!(error("select=name::text").detail.contains("casts"));
    assert!(error("select=rel(x)").detail.contains("embed"));
    assert!(error("select=id,id").detail.contains("alias"));
}

#[test]
fn json_server_parameters_are_equivalent() {
    let page = list("_page=3&_limit=20&_sort=price,-name&_order=DESC");
    assert_eq!((page.query.limit, page.query.offset), (Some(20), 40));
    assert_eq!(page.query.order, [OrderTerm::new("price", true), OrderTerm::new("name", true)]);
    let slice = list("_start=25&_end=50");
    assert_eq!((slice.query.limit, slice.query.offset), (Some(25), 25));
    assert_eq!(list("_limit=5").query.limit, Some(5));
    assert_eq!(list("_page=2").query.offset, 10);
    assert_eq!(where_of("price_gte=1&price_lte=5"), r#"{"price":{"gte":1}},{"price":{"lte":5}}"#);
    assert_eq!(where_of("name_ne=x"), r#"{"name":{"neq":"x"}}"#);
    assert!(hit("name_like=50%25", r#"{"name":"A 50% TART"}"#));
    assert!(!hit("name_like=50%25", r#"{"name":"500"}"#));
    assert!(hit("meta.by.name=Ann", r#"{"meta":{"by":{"name":"Ann"}}}"#));
    assert_eq!(where_of("author.name=x"), r#"{"author.name":{"eq":"x"}}"#);
    assert!(error("_page=0").detail.contains("from 1"));
    assert!(error("_page=1&limit=5").detail.contains("cannot be combined"));
}

#[test]
fn simple_rest_json_is_equivalent() {
    let list = list(
        r#"sort=["price","DESC"]&range=[10,34]&filter={"id":[1,"2"],"q":"tart","price_gte":5,"meta":{"a":1},"name":null}"#,
    );
    assert_eq!(list.query.order, [OrderTerm::new("price", true)]);
    assert_eq!((list.query.limit, list.query.offset), (Some(25), 10));
    assert_eq!(list.query.search.as_deref(), Some("tart"));
    assert_eq!(
        String::from_utf8(value_to_json(&list.query.filter.to_json())).unwrap(),
        r#"{"and":[{"id":{"in":[1,2]}},{"price":{"gte":5}},{"meta->a":{"eq":1}},{"name":{"is":"null"}}]}"#
    );
    assert!(error("filter={").detail.contains("not JSON"));
    assert!(error("range=[5,1]").detail.contains("both included"));
    assert_eq!(error(r#"filter={"nope_nope":1}"#).code, ParamCode::UnknownColumn);
}

#[test]
fn unknown_names_are_refused_with_the_nearest_name() {
    let code_and_hint = |raw: &str| {
        let error = error(raw);
        (error.code.as_str(), error.hint.unwrap_or_default())
    };
    assert_eq!(code_and_hint("prise=1"), ("unknown-column", r#"did you mean "price"?"#.into()));
    assert_eq!(code_and_hint("ofset=1"), ("unknown-parameter", r#"did you mean "offset"?"#.into()));
    assert_eq!(code_and_hint("_lmit=1"), ("unknown-parameter", r#"did you mean "_limit"?"#.into()));
    assert_eq!(code_and_hint("_=123").0, "unknown-parameter");
    assert_eq!(code_and_hint("_embed=comments").0, "unknown-parameter");
    assert_eq!(code_and_hint("=5").0, "unknown-column");
    assert_eq!(code_and_hint("order=prcie").0, "unknown-column");
    assert_eq!(code_and_hint("select=nam"), ("unknown-column", r#"did you mean "name"?"#.into()));
    assert_eq!(code_and_hint("price=cheap").0, "invalid-parameter");
    assert_eq!(code_and_hint("price=null"), ("invalid-parameter", "use is.null".into()));
    assert_eq!(code_and_hint("price=gtt.5"), ("invalid-parameter", r#"did you mean the operator "gt"?"#.into()));
    let foo = error("price=foo.1");
    assert!(foo.detail.contains(r#""foo" is not a valid operator"#), "{foo:?}");
    assert!(foo.hint.is_some_and(|hint| hint.starts_with("operators are eq, neq,")));
    assert!(!error("price=1.5.2").detail.contains("operator") && list("price=1.5&name=a.b").query.filter.tests() == 2);
    assert_eq!(code_and_hint("name=in.progress").1, "lists are in.(a,b); for the text itself write eq.in.progress");
    assert!(code_and_hint("name=fts.word").1.contains("eq.fts.word"));
    assert!(code_and_hint("name=eq(any).{a}").1.contains("for the text itself"));
    assert!(code_and_hint("name=not.foo").1.contains("eq.not.foo"));
    assert_eq!(code_and_hint("name=match.(").0, "invalid-parameter");
    assert_eq!(code_and_hint("limit=-1").0, "invalid-parameter");
    assert_eq!(code_and_hint("limit=1&limit=2").0, "invalid-parameter");
    assert_eq!(code_and_hint("name=%FF").0, "invalid-parameter");
}

#[test]
fn queries_from_clients_are_bounded() {
    let code = |raw: &str| error(raw).code;
    assert_eq!(code("limit=10001"), ParamCode::LimitTooLarge);
    assert_eq!(code("limit=99999999999999999999999"), ParamCode::LimitTooLarge);
    assert_eq!(code(&format!("q={}", "x".repeat(257))), ParamCode::LimitTooLarge);
    assert_eq!(code(&"name=like.a&".repeat(21)), ParamCode::LimitTooLarge);
    assert_eq!(code(&format!("or=({}name.eq.1)", "name.eq.1,".repeat(20))), ParamCode::LimitTooLarge);
    assert_eq!(code(&format!("name=in.({}a)", "a,".repeat(1_000))), ParamCode::LimitTooLarge);
    assert_eq!(code(&"id=1&".repeat(1_001)), ParamCode::LimitTooLarge);
    assert_eq!(code("name=match.((a{100}){100}){100}"), ParamCode::InvalidParameter);
    assert_eq!(list(&"id=1&".repeat(1_000)).query.filter.tests(), 1);
}

#[test]
fn a_route_gets_its_own_parameters_and_the_prefix_of_page_links() {
    let options = ParamOptions { extra: &["since"], ..ParamOptions::default() };
    let list = parse("since=7&price=gt.5&limit=10&_sort=price&after=", &schema(), &options).unwrap();
    assert_eq!(list.extra, [("since".to_string(), "7".to_string())]);
    assert_eq!(list.without_paging, "since=7&price=gt.5&_sort=price");
}

proptest! {
    #[test]
    fn arbitrary_text_is_read_or_refused_but_never_panics(raw in ".*") {
        let _ = parse(&raw, &schema(), &ParamOptions::default());
    }

    #[test]
    fn text_that_looks_like_a_query_is_read_or_refused_but_never_panics(
        raw in proptest::collection::vec(prop_oneof![
            prop_oneof![Just("name"), Just("price"), Just("meta"), Just("->"), Just("->>"), Just("or="), Just("and"),
                Just("not."), Just("eq."), Just("in."), Just("like."), Just("is."), Just("("), Just(")"), Just(",")],
            prop_oneof![Just("."), Just("="), Just("&"), Just("\""), Just("\\"), Just("%2"), Just("%C3"), Just("é"), Just("null"),
                Just("order="), Just("select="), Just("filter={"), Just("range=["), Just("_sort="), Just("1"), Just(":"), Just("*")],
        ], 0..14)
    ) {
        if let Ok(list) = parse(&raw.concat(), &schema(), &ParamOptions::default()) {
            prop_assert!(list.query.validate(&schema()).is_ok());
            let again = Filter::from_json(&list.query.filter.to_json(), &schema());
            prop_assert!(again.is_ok() || list.query.filter.tests() > MAX_TESTS);
        }
    }
}
