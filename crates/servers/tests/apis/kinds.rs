//! The ten APIs, and how a client reads the pages of each.

use diorama_servers::apis::{
    Airtable, Double, GitHub, GitLab, HubSpot, JsonApi, Notion, OData, Shopify, Strapi, Stripe,
};
use serde_json::{Value, json};

use crate::client::{Ask, Reply};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    GitHub,
    GitLab,
    GitLabKeyset,
    Stripe,
    Shopify,
    Airtable,
    Notion,
    HubSpot,
    JsonApi,
    OData,
    Strapi,
}

use Kind::*;

pub(crate) const KINDS: [Kind; 11] =
    [GitHub, GitLab, GitLabKeyset, Stripe, Shopify, Airtable, Notion, HubSpot, JsonApi, OData, Strapi];

impl Kind {
    pub(crate) async fn start(self, rows: usize) -> Double {
        match self {
            GitHub => GitHub::start(GitHub::rows(rows)).await,
            GitLab | GitLabKeyset => GitLab::start(GitLab::rows(rows)).await,
            Stripe => Stripe::start(Stripe::rows(rows)).await,
            Shopify => Shopify::start(Shopify::rows(rows)).await,
            Airtable => Airtable::start(Airtable::rows(rows)).await,
            Notion => Notion::start(Notion::rows(rows)).await,
            HubSpot => HubSpot::start(HubSpot::rows(rows)).await,
            JsonApi => JsonApi::start(JsonApi::rows(rows)).await,
            OData => OData::start(OData::rows(rows)).await,
            Strapi => Strapi::start(Strapi::rows(rows)).await,
        }
    }

    /// Request of the first page; with the API's own size of pages if `size` is none.
    pub(crate) fn first(self, api: &Double, size: Option<usize>) -> Ask {
        let (name, query) = match self {
            GitHub => ("per_page", "state=all"),
            GitLab => ("per_page", "state=all"),
            GitLabKeyset => ("per_page", "pagination=keyset&order_by=updated_at&sort=asc"),
            Stripe | Shopify | HubSpot => ("limit", "x=1"),
            Airtable => ("pageSize", "x=1"),
            JsonApi => ("page%5Bsize%5D", "x=1"),
            Strapi => ("pagination%5BpageSize%5D", "x=1"),
            Notion | OData => ("", ""),
        };
        let size_in_query = size.map_or_else(String::new, |size| format!("&{name}={size}"));
        match self {
            Notion => {
                Ask::to(api, "POST", api.list_url()).json(&size.map_or(json!({}), |size| json!({"page_size": size})))
            }
            OData => {
                let preference = size.map_or_else(String::new, |size| format!("maxpagesize={size}"));
                Ask::to(api, "GET", api.list_url()).with("prefer", &preference)
            }
            _ => Ask::to(api, "GET", format!("{}?{query}{size_in_query}", api.list_url())),
        }
    }

    /// Rows of a page.
    pub(crate) fn rows(self, reply: &Reply) -> Vec<Value> {
        let body = reply.json();
        let rows = match self {
            GitHub | GitLab | GitLabKeyset => &body,
            Stripe | JsonApi | Strapi => &body["data"],
            Shopify => &body["products"],
            Airtable => &body["records"],
            Notion | HubSpot => &body["results"],
            OData => &body["value"],
        };
        rows.as_array().unwrap_or_else(|| panic!("{self:?} {body}")).clone()
    }

    /// Request of the page after this one.
    pub(crate) fn next(self, ask: &Ask, reply: &Reply) -> Option<Ask> {
        let body = reply.json();
        let at = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let with = |name: &str, value: &str| {
            let kept: Vec<_> =
                ask.url.split(['?', '&']).filter(|part| !part.starts_with(&format!("{name}="))).collect();
            let url = format!("{}?{}", kept[0], kept[1..].join("&"));
            Some(Ask { url: format!("{url}&{name}={value}"), ..ask.clone() })
        };
        let to = |url: Option<String>| Some(Ask { url: url?, ..ask.clone() });
        match self {
            GitHub | GitLab | GitLabKeyset | Shopify => to(reply.link("next")),
            JsonApi => to(at("/links/next")),
            OData => to(at("/@odata.nextLink")),
            Stripe if body["has_more"] == true => with("starting_after", self.rows(reply).last()?["id"].as_str()?),
            Stripe => None,
            Airtable => with("offset", &at("/offset")?),
            HubSpot => with("after", &at("/paging/next/after")?),
            Notion => {
                let cursor = at("/next_cursor")?;
                let mut body: Value = serde_json::from_slice(&ask.body).unwrap();
                body["start_cursor"] = cursor.into();
                Some(ask.clone().json(&body))
            }
            Strapi => {
                let pages = &body["meta"]["pagination"];
                let page = pages["page"].as_u64()?;
                if page >= pages["pageCount"].as_u64()? {
                    return None;
                }
                with("pagination%5Bpage%5D", &(page + 1).to_string())
            }
        }
    }

    /// Id of a row as the URL of one row has it.
    pub(crate) fn id(self, row: &Value) -> String {
        let name = match self {
            GitHub => "number",
            GitLab | GitLabKeyset => "iid",
            OData => "ID",
            Strapi => "documentId",
            _ => "id",
        };
        row[name].as_str().map_or_else(|| row[name].to_string(), str::to_owned)
    }

    /// True if a page begins after a certain row, wherever that row is now.
    pub(crate) fn has_cursors(self) -> bool {
        ![GitHub, GitLab, JsonApi, Strapi].contains(&self)
    }

    /// URL of one row.
    pub(crate) fn url(self, api: &Double, id: &str) -> String {
        match self {
            Shopify => format!("{}/{id}.json", api.list_url().strip_suffix(".json").unwrap()),
            Notion => format!("{}/v1/pages/{id}", api.url()),
            OData => format!("{}({id})", api.list_url()),
            _ => format!("{}/{id}", api.list_url()),
        }
    }
}

/// Ids of all rows, and the number of pages.
pub(crate) fn read(kind: Kind, first: Ask) -> (Vec<String>, usize) {
    let (mut ids, mut pages, mut ask) = (Vec::new(), 0, Some(first));
    while let Some(page) = ask {
        let reply = page.send().expect(200);
        ids.extend(kind.rows(&reply).iter().map(|row| kind.id(row)));
        ask = kind.next(&page, &reply);
        pages += 1;
    }
    (ids, pages)
}
