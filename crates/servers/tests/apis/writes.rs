//! Writes as documented.

use diorama_servers::apis::{Double, Notion};
use serde_json::{Value, json};

use crate::client::{Ask, Reply};
use crate::kinds::{KINDS, Kind};

/// Bodies of requests to create and update a row, and where an answer has what they set.
struct Writes {
    create: Value,
    update: (&'static str, Value),
    invalid: (Value, u16),
    pointer: &'static str,
    /// Status of a creation, and of a deletion; none if there is no endpoint.
    statuses: (u16, Option<u16>),
}

fn writes(kind: Kind, id: &str) -> Writes {
    let simple = |pointer, method, wrap: fn(Value) -> Value, invalid, statuses| Writes {
        create: wrap(json!({"title": "new é"})),
        update: (method, wrap(json!({"title": "changed"}))),
        invalid: (wrap(json!({"title": ""})), invalid),
        pointer,
        statuses,
    };
    match kind {
        Kind::GitHub => simple("/title", "PATCH", |content| content, 422, (201, None)),
        Kind::GitLab | Kind::GitLabKeyset => simple("/title", "PUT", |content| content, 400, (201, Some(204))),
        Kind::Shopify => simple("/product/title", "PUT", |content| json!({"product": content}), 422, (201, Some(200))),
        Kind::Strapi => simple("/data/title", "PUT", |content| json!({"data": content}), 400, (200, Some(204))),
        Kind::Airtable => Writes {
            create: json!({"fields": {"Name": "new é"}}),
            update: ("PATCH", json!({"fields": {"Name": "changed"}})),
            invalid: (json!({"fields": {"Nothing": 1}}), 422),
            pointer: "/fields/Name",
            statuses: (200, Some(200)),
        },
        Kind::Notion => Writes {
            create: json!({"parent": {"data_source_id": "248104cd477e80afbc30000bd28de8f9"}, "properties": Notion::properties("new é", 1.5)}),
            update: ("PATCH", json!({"properties": Notion::properties("changed", 2.5)})),
            invalid: (json!({"properties": {"Price": {"number": "much"}}}), 400),
            pointer: "/properties/Name/title/0/plain_text",
            statuses: (200, None),
        },
        Kind::HubSpot => Writes {
            create: json!({"properties": {"lastname": "new é", "email": "new@example.com"}}),
            update: ("PATCH", json!({"properties": {"lastname": "changed"}})),
            invalid: (json!({"properties": {"email": "nothing"}}), 400),
            pointer: "/properties/lastname",
            statuses: (201, Some(204)),
        },
        Kind::JsonApi => Writes {
            create: json!({"data": {"type": "articles", "attributes": {"title": "new é"}}}),
            update: ("PATCH", json!({"data": {"type": "articles", "id": id, "attributes": {"title": "changed"}}})),
            invalid: (json!({"data": {"type": "articles", "attributes": {"title": ""}}}), 422),
            pointer: "/data/attributes/title",
            statuses: (201, Some(204)),
        },
        Kind::OData => Writes {
            create: json!({"Name": "new é"}),
            update: ("PATCH", json!({"Name": "changed"})),
            invalid: (json!({"Name": ""}), 400),
            pointer: "/Name",
            statuses: (201, Some(204)),
        },
        Kind::Stripe => unreachable!("its bodies are forms"),
    }
}

/// A request that may change a row whatever its version.
fn write(api: &Double, method: &'static str, url: String) -> Ask {
    Ask::to(api, method, url).with("if-match", "*").with("prefer", "return=representation")
}

#[tokio::test]
async fn rows_are_created_changed_and_deleted() {
    for kind in KINDS.into_iter().filter(|kind| *kind != Kind::Stripe) {
        let api = kind.start(3).await;
        let list = if kind == Kind::Notion { format!("{}/v1/pages", api.url()) } else { api.list_url() };
        let create = |body: &Value| write(&api, "POST", list.clone()).json(body);
        let Writes { create: content, invalid, pointer, statuses, .. } = writes(kind, "");
        assert_eq!(create(&invalid.0).send().status, invalid.1, "{kind:?}");
        let reply = create(&content).send().expect(statuses.0);
        assert_eq!(reply.json().pointer(pointer), Some(&json!("new é")), "{kind:?}");
        let row = api.rows().pop().unwrap();
        assert_eq!(api.rows().len(), 4);

        let url = kind.url(&api, &kind.id(&row));
        let (method, content) = writes(kind, &kind.id(&row)).update;
        let reply = write(&api, method, url.clone()).json(&content).send().expect(200);
        assert_eq!(reply.json().pointer(pointer), Some(&json!("changed")), "{kind:?}");
        let read = Ask::to(&api, "GET", url.clone()).send().expect(200);
        assert_eq!(read.json().pointer(pointer), Some(&json!("changed")), "{kind:?}");
        let other = kind.url(&api, "999999");
        write(&api, method, other.clone()).json(&content).send().expect(404);

        if let Some(status) = statuses.1 {
            write(&api, "DELETE", other).send().expect(404);
            write(&api, "DELETE", url.clone()).send().expect(status);
            assert_eq!(api.rows().len(), 3);
            write(&api, "DELETE", url).send().expect(404);
        }
    }
}

#[tokio::test]
async fn the_content_of_requests_can_be_written_behind_the_back() {
    for kind in KINDS.into_iter().filter(|kind| *kind != Kind::Stripe) {
        let api = kind.start(3).await;
        let Writes { create, pointer, .. } = writes(kind, "");
        let id = api.insert(&create);
        let read = || Ask::to(&api, "GET", kind.url(&api, &id)).send().expect(200).json();
        assert_eq!(read().pointer(pointer), Some(&json!("new é")), "{kind:?}");
        assert!(api.change(&id, &writes(kind, &id).update.1));
        assert_eq!(read().pointer(pointer), Some(&json!("changed")), "{kind:?}");
    }
}

#[tokio::test]
async fn changes_behind_the_back_show_in_answers() {
    let api = Kind::GitLab.start(3).await;
    let id = api.insert(&json!({"title": "behind"}));
    assert!(api.change(&id, &json!({"labels": "a,b", "state_event": "close"})));
    let row = Ask::to(&api, "GET", Kind::GitLab.url(&api, &id)).send().expect(200).json();
    assert_eq!((&row["labels"], &row["state"]), (&json!(["a", "b"]), &json!("closed")));
    assert!(api.delete(&id) && !api.delete(&id) && !api.change(&id, &json!({})));
    assert_eq!((api.row(&id), api.count()), (None, 1));
}

fn stripe(api: &Double, path: &str, body: &str) -> Ask {
    Ask::to(api, "POST", format!("{}{path}", api.list_url())).form(body)
}

#[tokio::test]
async fn customers_are_forms() {
    let api = Kind::Stripe.start(2).await;
    let body = "name=Zo%C3%AB&email=a@b.c&metadata[size]=7&metadata[color]=red&address[city]=K%C3%B6ln";
    let row = stripe(&api, "", body).send().expect(200).json();
    assert_eq!((&row["name"], &row["address"]["city"]), (&json!("Zoë"), &json!("Köln")));
    let path = format!("/{}", row["id"].as_str().unwrap());
    let row = stripe(&api, &path, "metadata[size]=&name=").send().expect(200).json();
    assert_eq!(
        (&row["metadata"], &row["name"], &row["email"]),
        (&json!({"color": "red"}), &Value::Null, &json!("a@b.c"))
    );
    let code = |reply: Reply| reply.json()["error"]["code"].clone();
    assert_eq!(code(stripe(&api, "", "email=nothing").send().expect(400)), "email_invalid");
    assert_eq!(code(stripe(&api, "", "nothing=1").send().expect(400)), "parameter_unknown");
    assert_eq!(code(stripe(&api, "/cus_nothing", "name=x").send().expect(404)), "resource_missing");
    let url = format!("{}{path}", api.list_url());
    assert_eq!(Ask::to(&api, "DELETE", url.clone()).send().expect(200).json()["deleted"], true);
    assert_eq!(Ask::to(&api, "GET", url).send().expect(200).json()["deleted"], true);
}

#[tokio::test]
async fn an_idempotency_key_runs_a_write_once() {
    let api = Kind::Stripe.start(0).await;
    let keyed = |body: &str| stripe(&api, "", body).with("idempotency-key", "k1").send();
    keyed("email=nothing").expect(400);
    let first = keyed("name=a").expect(200);
    let again = keyed("name=a").expect(200);
    assert_eq!((first.json(), again.header("idempotent-replayed")), (again.json(), Some("true")));
    assert_eq!(api.rows().len(), 1);
    assert_eq!(keyed("name=b").expect(400).json()["error"]["type"], "idempotency_error");
    stripe(&api, "", "name=a").send().expect(200);
    assert_eq!(api.rows().len(), 2);
}

#[tokio::test]
async fn odata_writes_need_the_etag() {
    let api = Kind::OData.start(2).await;
    let id = Kind::OData.id(&api.rows()[0]);
    let url = Kind::OData.url(&api, &id);
    let read = || Ask::to(&api, "GET", url.clone()).send().header("etag").unwrap().to_owned();
    let patch = Ask::to(&api, "PATCH", url.clone()).json(&json!({"Stock": 9}));
    assert_eq!(patch.send().expect(428).json()["error"]["code"], "PreconditionRequired");
    let etag = read();
    let reply = patch.clone().with("if-match", &etag).send().expect(204);
    assert_eq!((reply.header("etag"), reply.body.len()), (Some(read().as_str()), 0));
    patch.with("if-match", &etag).send().expect(412);
    Ask::to(&api, "PUT", url.clone()).json(&json!({"Name": "only"})).with("if-match", &read()).send().expect(204);
    let row = api.row(&id).unwrap();
    assert_eq!((&row["Name"], &row["Stock"], row["ID"].to_string()), (&json!("only"), &json!(0), id));
    Ask::to(&api, "DELETE", url.clone()).send().expect(428);
    Ask::to(&api, "DELETE", url.clone()).with("if-match", &read()).send().expect(204);
    let minimal = Ask::to(&api, "POST", api.list_url()).json(&json!({"Name": "x"})).with("prefer", "return=minimal");
    assert!(minimal.send().expect(204).header("odata-entityid").unwrap().starts_with(&api.list_url()));
}

#[tokio::test]
async fn json_api_writes_name_type_and_id() {
    let api = Kind::JsonApi.start(2).await;
    let post = |data: Value| Ask::to(&api, "POST", api.list_url()).json(&json!({"data": data}));
    post(json!({"type": "people"})).send().expect(409);
    post(json!({"type": "articles", "id": "5", "attributes": {"title": "x"}})).send().expect(403);
    let article = json!({"type": "articles", "attributes": {"title": "x"}});
    post(article.clone()).with("content-type", "application/json").send().expect(415);
    post(article.clone()).with("content-type", "application/vnd.api+json; charset=utf-8").send().expect(415);
    let created = post(article).send().expect(201);
    assert_eq!(created.header("location"), Some(Kind::JsonApi.url(&api, "3").as_str()));
    let data = json!({"type": "articles", "id": "2", "attributes": {"title": "x"}});
    Ask::to(&api, "PATCH", Kind::JsonApi.url(&api, "3")).json(&json!({"data": data})).send().expect(409);
}

#[tokio::test]
async fn airtable_updates_keep_or_clear_and_creates_up_to_ten() {
    let api = Kind::Airtable.start(1).await;
    let id = Kind::Airtable.id(&api.rows()[0]);
    let url = Kind::Airtable.url(&api, &id);
    let fields = |method, fields: Value| {
        Ask::to(&api, method, url.clone()).json(&json!({"fields": fields})).send().expect(200).json()
    };
    let kept = fields("PATCH", json!({"Amount": 5}));
    assert!(kept["fields"]["Name"].is_string() && kept["fields"]["Amount"] == 5);
    let cleared = fields("PUT", json!({"Name": "x"}));
    assert_eq!((&cleared["fields"]["Name"], cleared["fields"].get("Amount")), (&json!("x"), None));
    let records = |count: usize| vec![json!({"fields": {"Name": "n"}}); count];
    let post = |body: Value| Ask::to(&api, "POST", api.list_url()).json(&body).send();
    assert_eq!(post(json!({"records": records(10)})).expect(200).json()["records"].as_array().unwrap().len(), 10);
    post(json!({"records": records(11)})).expect(422);
    assert_eq!(post(json!({})).expect(422).json()["error"]["type"], "INVALID_REQUEST_MISSING_FIELDS");
}

#[tokio::test]
async fn hubspot_refuses_a_second_contact_with_the_same_address() {
    let api = Kind::HubSpot.start(2).await;
    let body = json!({"properties": {"email": "contact+1@example.com"}});
    let reply = Ask::to(&api, "POST", api.list_url()).json(&body).send().expect(409).json();
    assert_eq!((&reply["category"], &reply["status"]), (&json!("CONFLICT"), &json!("error")));
    assert!(reply["message"].as_str().unwrap().contains("Existing ID: 9007199254740995"));
}

#[tokio::test]
async fn strapi_documents_keep_their_document_id_when_their_id_changes() {
    let api = Kind::Strapi.start(1).await;
    let before = api.rows().remove(0);
    let url = Kind::Strapi.url(&api, before["documentId"].as_str().unwrap());
    let after = Ask::to(&api, "PUT", url).json(&json!({"data": {"views": 3}})).send().expect(200).json();
    assert_eq!(after["data"]["documentId"], before["documentId"]);
    assert_ne!(after["data"]["id"], before["id"]);
}
