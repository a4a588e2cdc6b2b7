//! Filters, orders and single rows as documented.

use diorama_servers::apis::Double;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::client::Ask;
use crate::kinds::{KINDS, Kind, read};

#[tokio::test]
async fn one_row_is_what_the_list_has() {
    for kind in KINDS {
        let api = kind.start(30).await;
        let row = kind.rows(&kind.first(&api, None).send())[3].clone();
        let id = kind.id(&row);
        let reply = Ask::to(&api, "GET", kind.url(&api, &id)).send().expect(200).json();
        let one = match kind {
            Kind::Shopify => &reply["product"],
            Kind::JsonApi | Kind::Strapi => &reply["data"],
            _ => &reply,
        };
        if kind == Kind::OData {
            assert_eq!((&one["ID"], &one["@odata.etag"]), (&row["ID"], &row["@odata.etag"]));
        } else {
            assert_eq!(one, &row, "{kind:?}");
        }
        let other = Ask::to(&api, "GET", kind.url(&api, "999999")).send().expect(404).json();
        let message = match kind {
            Kind::GitHub => json!("Not Found"),
            Kind::GitLab | Kind::GitLabKeyset => json!("404 Not found"),
            Kind::Stripe => json!("resource_missing"),
            Kind::Shopify => json!("Not Found"),
            Kind::Airtable => json!("NOT_FOUND"),
            Kind::Notion => json!("object_not_found"),
            Kind::HubSpot => json!("OBJECT_NOT_FOUND"),
            Kind::JsonApi => json!("404"),
            Kind::OData => json!("NotFound"),
            Kind::Strapi => json!("NotFoundError"),
        };
        let pointers =
            ["/message", "/error/code", "/errors", "/code", "/category", "/errors/0/status", "/error/name", "/error"];
        let found: Vec<_> = pointers.iter().filter_map(|pointer| other.pointer(pointer)).collect();
        assert!(found.contains(&&message), "{kind:?} {other}");
    }
}

/// Ids of the rows that an API lists as changed since the start of the test, with a filter by that time.
fn changed(kind: Kind, api: &Double, since: &str) -> Vec<String> {
    let url = api.list_url();
    let ask = match kind {
        Kind::GitHub => Ask::to(api, "GET", format!("{url}?state=all&since={since}")),
        Kind::GitLab | Kind::GitLabKeyset => Ask::to(api, "GET", format!("{url}?updated_after={since}")),
        Kind::Shopify => Ask::to(api, "GET", format!("{url}?updated_at_min={since}&limit=1")),
        Kind::Airtable => {
            Ask::to(api, "GET", format!("{url}?filterByFormula=IS_AFTER(LAST_MODIFIED_TIME(),%20'{since}')&pageSize=1"))
        }
        Kind::Notion => {
            let filter = json!({"timestamp": "last_edited_time", "last_edited_time": {"on_or_after": since}});
            Ask::to(api, "POST", url).json(&json!({"filter": filter, "page_size": 1}))
        }
        Kind::HubSpot => {
            let filter = json!({"propertyName": "lastmodifieddate", "operator": "GTE", "value": since});
            return Ask::to(api, "POST", format!("{url}/search"))
                .json(&json!({"filterGroups": [{"filters": [filter]}], "sorts": ["lastmodifieddate"]}))
                .send()
                .expect(200)
                .json()["results"]
                .as_array()
                .map_or_else(Vec::new, |rows| rows.iter().map(|row| kind.id(row)).collect());
        }
        Kind::OData => Ask::to(api, "GET", format!("{url}?$filter=ModifiedAt%20ge%20{since}&$top=5"))
            .with("prefer", "maxpagesize=1"),
        Kind::Strapi => Ask::to(api, "GET", format!("{url}?filters[updatedAt][$gte]={since}&pagination[pageSize]=1")),
        Kind::Stripe | Kind::JsonApi => unreachable!("no filter by time of change is documented"),
    };
    read(kind, ask).0
}

/// Content of an update request that sets the title, or what is next to it.
fn titled(kind: Kind, title: &str) -> Value {
    match kind {
        Kind::Airtable => json!({"fields": {"Name": title}}),
        Kind::Notion => json!({"properties": {"Name": {"title": [{"text": {"content": title}}]}}}),
        Kind::HubSpot => json!({"properties": {"lastname": title}}),
        Kind::OData => json!({"Name": title}),
        _ => json!({"title": title}),
    }
}

#[tokio::test]
async fn filters_by_time_list_the_rows_changed_since() {
    for kind in KINDS.into_iter().filter(|kind| ![Kind::Stripe, Kind::JsonApi].contains(kind)) {
        let api = kind.start(40).await;
        // A minute ago: Notion cuts times to the minute.
        let since = Timestamp::from_second(Timestamp::now().as_second() - 60).unwrap().to_string();
        assert!(changed(kind, &api, &since).is_empty(), "{kind:?}");
        let rows = api.rows();
        let mut ids = [kind.id(&rows[3]), kind.id(&rows[17])];
        assert!(ids.iter().all(|id| api.change(id, &titled(kind, "neu"))));
        let mut listed = changed(kind, &api, &since);
        ids.sort();
        listed.sort();
        assert_eq!(listed, ids, "{kind:?}");
    }
}

#[tokio::test]
async fn a_page_of_shopify_keeps_the_filter_and_takes_no_other() {
    let api = Kind::Shopify.start(40).await;
    let draft = api.rows().iter().filter(|row| row["status"] == "draft").count();
    assert!(draft > 4);
    let first = Ask::to(&api, "GET", format!("{}?status=draft&limit=4", api.list_url()));
    assert_eq!(read(Kind::Shopify, first.clone()).0.len(), draft);
    let next = first.send().link("next").unwrap();
    Ask::to(&api, "GET", format!("{next}&status=draft")).send().expect(400);
    let fields = Ask::to(&api, "GET", format!("{next}&fields=id,title")).send().expect(200).json();
    assert_eq!(fields["products"][0].as_object().unwrap().len(), 2);
    let count = Ask::to(&api, "GET", api.list_url().replace("products.json", "products/count.json")).send();
    assert_eq!(count.json(), json!({"count": 40}));
}

#[tokio::test]
async fn github_lists_open_issues_and_says_when_one_was_deleted() {
    let api = Kind::GitHub.start(100).await;
    let open = api.rows().iter().filter(|row| row["state"] == "open").count();
    let ask = Ask::to(&api, "GET", format!("{}?per_page=100", api.list_url()));
    assert_eq!(read(Kind::GitHub, ask).0.len(), open);
    assert!(api.delete("7"));
    Ask::to(&api, "GET", Kind::GitHub.url(&api, "7")).send().expect(410);
    let since = Ask::to(&api, "GET", format!("{}?since=yesterday", api.list_url())).send().expect(422);
    assert_eq!(since.json()["errors"][0]["code"], "invalid");
}

#[tokio::test]
async fn keysets_of_gitlab_hold_for_rows_with_the_same_key() {
    let api = Kind::GitLab.start(0).await;
    (0..7).for_each(|_| drop(api.insert(&json!({"title": "the same"}))));
    for sort in ["asc", "desc"] {
        let url = format!("{}?pagination=keyset&order_by=title&sort={sort}&per_page=2", api.list_url());
        let (ids, _) = read(Kind::GitLabKeyset, Ask::to(&api, "GET", url));
        let expected: Vec<_> = if sort == "asc" { (1..=7).collect() } else { (1..=7).rev().collect() };
        assert_eq!(ids, expected.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    Ask::to(&api, "GET", format!("{}?pagination=keyset&order_by=popularity", api.list_url())).send().expect(405);
}

#[tokio::test]
async fn airtable_leaves_out_empty_fields() {
    let api = Kind::Airtable.start(0).await;
    let id = api.insert(&json!({"fields": {"Name": "a", "Done": false, "Tags": [], "Notes": ""}}));
    let record = Ask::to(&api, "GET", Kind::Airtable.url(&api, &id)).send().json();
    assert_eq!(record["fields"].as_object().unwrap().keys().collect::<Vec<_>>(), ["Modified", "Name"]);
    let most = Kind::Airtable.start(50).await;
    let ask = Ask::to(&most, "GET", format!("{}?maxRecords=25&pageSize=10", most.list_url()));
    assert_eq!(read(Kind::Airtable, ask).0.len(), 25);
}

#[tokio::test]
async fn hubspot_answers_the_properties_that_are_asked_for() {
    let api = Kind::HubSpot.start(3).await;
    let names = |query: &str| {
        let page = Ask::to(&api, "GET", format!("{}?{query}", api.list_url())).send().json();
        page["results"][0]["properties"].as_object().unwrap().len()
    };
    assert_eq!((names(""), names("properties=phone,company")), (6, 8));
    let url = format!("{}/contact+2@example.com?idProperty=email", api.list_url());
    assert_eq!(Ask::to(&api, "GET", url).send().expect(200).json()["properties"]["email"], "contact+2@example.com");
}

#[tokio::test]
async fn odata_takes_top_skip_count_select_and_etags() {
    let api = Kind::OData.start(30).await;
    let list = |query: &str| Ask::to(&api, "GET", format!("{}?{query}", api.list_url())).send().expect(200).json();
    let page = list("$top=3&$skip=2&$count=true&$select=ID,Name&$orderby=ID%20desc");
    assert_eq!((page["value"].as_array().unwrap().len(), &page["@odata.count"]), (3, &json!(30)));
    assert_eq!(page["value"][0]["ID"], 9_007_199_254_740_993_u64 + 56);
    assert_eq!(page["value"][0].as_object().unwrap().len(), 3);
    let ask = Ask::to(&api, "GET", format!("{}?$top=25", api.list_url())).with("prefer", "odata.maxpagesize=10");
    let first = ask.send();
    assert_eq!(
        (first.header("preference-applied"), first.header("odata-version")),
        (Some("maxpagesize=10"), Some("4.01"))
    );
    let (ids, pages) = read(Kind::OData, ask);
    assert_eq!((ids.len(), pages), (25, 3));
    let one = Ask::to(&api, "GET", Kind::OData.url(&api, &ids[0]));
    let etag = one.send().header("etag").unwrap().to_owned();
    one.clone().with("if-none-match", &etag).send().expect(304);
    assert!(api.change(&ids[0], &json!({"Stock": 7})));
    one.with("if-none-match", &etag).send().expect(200);
}

#[tokio::test]
async fn strapi_pages_by_offset_as_well_but_not_by_both() {
    let api = Kind::Strapi.start(30).await;
    let list = |query: &str| Ask::to(&api, "GET", format!("{}?{query}", api.list_url())).send();
    let page = list("pagination[start]=25&pagination[limit]=10&sort=title:desc").expect(200).json();
    assert_eq!(page["data"].as_array().unwrap().len(), 5);
    assert_eq!(page["meta"]["pagination"], json!({"start": 25, "limit": 10, "total": 30}));
    list("pagination[start]=0&pagination[page]=1").expect(400);
    let bare = list("pagination[withCount]=false").expect(200).json();
    assert_eq!(bare["meta"]["pagination"], json!({"page": 1, "pageSize": 25}));
    list("sort=nothing").expect(400);
    list("filters[nothing][$eq]=1").expect(400);
}

#[tokio::test]
async fn json_api_includes_authors_and_names_unavailable_links() {
    let api = Kind::JsonApi.start(30).await;
    let list = |query: &str| Ask::to(&api, "GET", format!("{}?{query}", api.list_url())).send().expect(200).json();
    let page = list("include=author&sort=-words&page[number]=2");
    assert_eq!((page["data"].as_array().unwrap().len(), page["included"].as_array().unwrap().len()), (10, 10));
    assert_eq!((&page["links"]["next"], page["links"]["prev"].is_string()), (&Value::Null, true));
    assert_eq!(page["data"][0]["id"], "10");
    let reply = Ask::to(&api, "GET", format!("{}?page[size]=101", api.list_url())).send().expect(400).json();
    assert_eq!(reply["errors"][0]["source"]["parameter"], "page[size]");
}

#[tokio::test]
async fn notion_keeps_pages_in_the_trash_out_of_queries() {
    let api = Kind::Notion.start(5).await;
    let id = Kind::Notion.id(&api.rows()[0]);
    let patch = Ask::to(&api, "PATCH", Kind::Notion.url(&api, &id.replace('-', "")));
    patch.clone().json(&json!({"in_trash": true})).send().expect(200);
    assert_eq!(read(Kind::Notion, Kind::Notion.first(&api, None)).0.len(), 4);
    let page = Ask::to(&api, "GET", Kind::Notion.url(&api, &id)).send().expect(200).json();
    assert_eq!((&page["in_trash"], &page["last_edited_time"].as_str().unwrap()[17..]), (&json!(true), "00.000Z"));
    patch.json(&json!({"in_trash": false})).send().expect(200);
    assert_eq!(read(Kind::Notion, Kind::Notion.first(&api, None)).0.len(), 5);
}
