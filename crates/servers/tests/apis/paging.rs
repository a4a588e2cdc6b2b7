//! Paging as documented.

use std::collections::BTreeSet;

use crate::client::Ask;
use crate::kinds::{KINDS, Kind, read};

#[tokio::test]
async fn pages_give_each_row_once() {
    for kind in KINDS {
        let api = kind.start(257).await;
        let (ids, pages) = read(kind, kind.first(&api, Some(20)));
        let expected: BTreeSet<_> = api.rows().iter().map(|row| kind.id(row)).collect();
        assert_eq!(ids.len(), 257, "{kind:?}");
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), expected, "{kind:?}");
        // A keyset list ends with an empty page.
        assert_eq!(pages, if kind == Kind::GitLabKeyset { 14 } else { 13 }, "{kind:?}");
        assert_eq!(api.count(), pages);
    }
}

#[tokio::test]
async fn pages_have_the_documented_default_and_maximum() {
    // Default, maximum, and the status above the maximum.
    let sizes = |kind| match kind {
        Kind::GitHub => (30, 100, 200),
        Kind::GitLab | Kind::GitLabKeyset => (20, 100, 200),
        Kind::Stripe => (10, 100, 400),
        Kind::Shopify => (50, 250, 200),
        Kind::Airtable => (100, 100, 422),
        Kind::Notion => (100, 100, 400),
        Kind::HubSpot => (10, 100, 400),
        Kind::JsonApi => (20, 100, 400),
        Kind::OData => (100, 100, 200),
        Kind::Strapi => (25, 100, 200),
    };
    for kind in KINDS {
        let (default, most, status) = sizes(kind);
        let api = kind.start(300).await;
        assert_eq!(kind.rows(&kind.first(&api, None).send()).len(), default, "{kind:?}");
        assert_eq!(kind.rows(&kind.first(&api, Some(most)).send()).len(), most, "{kind:?}");
        let above = kind.first(&api, Some(most + 1)).send().expect(status);
        if status == 200 {
            assert_eq!(kind.rows(&above).len(), most, "{kind:?}");
        }
    }
}

#[tokio::test]
async fn rows_deleted_between_pages_hide_no_other_row_from_a_cursor() {
    for kind in KINDS.into_iter().filter(|kind| kind.has_cursors()) {
        let api = kind.start(60).await;
        let page: Vec<_> = kind.rows(&kind.first(&api, Some(20)).send()).iter().map(|row| kind.id(row)).collect();
        // The first row of the page that was read, and the one that a cursor may name.
        let gone = [page[0].clone(), page[19].clone()];
        let lost = gone.clone();
        api.before(1, move |rows| assert!(lost.iter().all(|id| rows.delete(id))));
        let (ids, _) = read(kind, kind.first(&api, Some(20)));
        let rest: BTreeSet<_> = api.rows().iter().map(|row| kind.id(row)).collect();
        let read: BTreeSet<_> = ids.into_iter().collect();
        assert_eq!(rest.len(), 58);
        assert!(rest.is_subset(&read), "{kind:?} lost {:?}", rest.difference(&read));
        assert!(gone.iter().all(|id| read.contains(id)), "{kind:?}");
    }
}

#[tokio::test]
async fn rows_deleted_between_pages_hide_another_row_from_numbered_pages() {
    for kind in KINDS.into_iter().filter(|kind| !kind.has_cursors()) {
        let api = kind.start(60).await;
        let page = kind.rows(&kind.first(&api, Some(20)).send());
        let gone = kind.id(&page[0]);
        api.before(1, move |rows| assert!(rows.delete(&gone)));
        assert_eq!(read(kind, kind.first(&api, Some(20))).0.len(), 59, "{kind:?}");
    }
}

#[tokio::test]
async fn ten_thousand_rows_have_numbers_of_64_bits() {
    let api = Kind::GitHub.start(10_000).await;
    let (ids, pages) = read(Kind::GitHub, kind_of_many(&api));
    assert_eq!((ids.len(), pages), (10_000, 100));
    let reply = Ask::to(&api, "GET", format!("{}/1", api.list_url())).send();
    assert!(reply.text().contains("\"id\":9007199254740995"), "{}", reply.text());
}

fn kind_of_many(api: &diorama_servers::apis::Double) -> Ask {
    Kind::GitHub.first(api, Some(100))
}

#[tokio::test]
async fn numbered_pages_have_the_documented_links() {
    let api = Kind::GitHub.start(95).await;
    let page =
        |page: usize| Ask::to(&api, "GET", format!("{}?state=all&per_page=30&page={page}", api.list_url())).send();
    let url = |page: usize| format!("{}?state=all&per_page=30&page={page}", api.list_url());
    let first = page(1);
    assert_eq!((first.link("next"), first.link("last")), (Some(url(2)), Some(url(4))));
    assert_eq!((first.link("prev"), first.link("first")), (None, None));
    let last = page(4);
    assert_eq!((last.link("next"), last.link("last")), (None, None));
    assert_eq!((last.link("prev"), last.link("first")), (Some(url(3)), Some(url(1))));
    let all = Ask::to(&api, "GET", format!("{}?state=all&per_page=95", api.list_url())).send();
    assert_eq!(all.header("link"), None);

    let api = Kind::GitLab.start(45).await;
    let middle = Ask::to(&api, "GET", format!("{}?page=2", api.list_url())).send();
    let headers = ["x-page", "x-per-page", "x-next-page", "x-prev-page", "x-total", "x-total-pages"];
    assert_eq!(headers.map(|name| middle.header(name).unwrap()), ["2", "20", "3", "1", "45", "3"]);
    let last = Ask::to(&api, "GET", format!("{}?page=3", api.list_url())).send();
    assert_eq!((last.header("x-next-page"), last.link("next")), (Some(""), None));
}

#[tokio::test]
async fn gitlab_counts_no_more_than_ten_thousand_rows() {
    let api = Kind::GitLab.start(10_001).await;
    let page = Ask::to(&api, "GET", api.list_url()).send();
    assert_eq!((page.header("x-total"), page.header("x-total-pages"), page.link("last")), (None, None, None));
    assert!(page.link("next").is_some());
}

#[tokio::test]
async fn expired_cursors_are_refused() {
    for (kind, status) in
        [(Kind::Airtable, 422), (Kind::Shopify, 400), (Kind::Notion, 400), (Kind::HubSpot, 400), (Kind::OData, 410)]
    {
        let api = kind.start(60).await;
        let ask = kind.first(&api, Some(20));
        let next = kind.next(&ask, &ask.send()).unwrap();
        next.send().expect(200);
        api.expire_cursors();
        let reply = next.send().expect(status);
        if kind == Kind::Airtable {
            assert_eq!(reply.json()["error"]["type"], "LIST_RECORDS_ITERATOR_NOT_AVAILABLE");
        }
    }
}

#[tokio::test]
async fn links_lead_back_as_well_as_forth() {
    let api = Kind::Shopify.start(50).await;
    let first = Kind::Shopify.first(&api, Some(20)).send();
    let follow = |url: Option<String>| Ask::to(&api, "GET", url.unwrap()).send().expect(200);
    let second = follow(first.link("next"));
    assert_eq!((first.link("previous"), second.link("previous").is_some()), (None, true));
    let third = follow(second.link("next"));
    assert_eq!(third.link("next"), None);
    assert_eq!(follow(third.link("previous")).json(), second.json());
    assert_eq!(follow(second.link("previous")).json(), first.json());

    let api = Kind::Stripe.start(50).await;
    let page = |query: &str| Ask::to(&api, "GET", format!("{}?limit=10&{query}", api.list_url())).send().expect(200);
    let first = page("").json();
    let second = page(&format!("starting_after={}", first["data"][9]["id"].as_str().unwrap())).json();
    let back = page(&format!("ending_before={}", second["data"][0]["id"].as_str().unwrap())).json();
    assert_eq!((&back["data"], &back["has_more"]), (&first["data"], &false.into()));
}
