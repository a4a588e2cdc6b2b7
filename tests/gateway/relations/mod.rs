//! Rows of other resources: embedded, as conditions, and under a row.

mod differential;

use diorama::gateway::access::{Allow, Verb};
use diorama::vista::Reference;
use diorama::{CborValue, Column, ColumnType, Record, Schema};
use serde_json::json;

use crate::access::world::{World, allow};
use crate::harness::{Answer, cells};

fn table(columns: &[(&str, ColumnType)]) -> Schema {
    Schema::new("id", columns.iter().map(|(name, ty)| Column::new(*name, *ty)).collect())
}

fn relation(name: &str, dio: &str, on: &str, many: bool) -> Reference {
    Reference { relation: name.into(), target: dio.into(), column: on.into(), many }
}

fn rows<const N: usize>(rows: &[[(&str, CborValue); N]]) -> Vec<(String, Record)> {
    let row = |row: &[(&str, CborValue); N]| {
        let id = match &row[0].1 {
            CborValue::Text(id) => id.clone(),
            CborValue::Integer(id) => i128::from(*id).to_string(),
            _ => panic!("the first cell is the id"),
        };
        (id, cells(row.clone()))
    };
    rows.iter().map(row).collect()
}

/// Products, their categories, and reviews of products.
async fn shop(rules: &[Allow]) -> World {
    use ColumnType::{Boolean, Integer, String};
    let products = table(&[("id", String), ("name", String), ("price", Integer), ("category_id", Integer)]);
    let categories = table(&[("id", Integer), ("name", String), ("public", Boolean)]);
    let reviews = table(&[("id", String), ("product_id", String), ("stars", Integer), ("author", String)]);
    let product = |id: &str, name: &str, price: i64, category: CborValue| {
        [("id", id.into()), ("name", name.into()), ("price", price.into()), ("category_id", category)]
    };
    let review = |id: &str, product: &str, stars: i64, author: &str| {
        [("id", id.into()), ("product_id", product.into()), ("stars", stars.into()), ("author", author.into())]
    };
    let tables = vec![
        (
            "products",
            products,
            rows(&[
                product("rye", "Rye", 320, 1.into()),
                product("bun", "Bun", 40, 2.into()),
                product("tart", "Tart", 400, 2.into()),
                product("bag", "Bag", 10, CborValue::Null),
                product("lost", "Lost", 5, 9.into()),
            ]),
        ),
        (
            "categories",
            categories,
            rows(&[
                [("id", 1.into()), ("name", "Bread".into()), ("public", true.into())],
                [("id", 2.into()), ("name", "Sweet".into()), ("public", false.into())],
            ]),
        ),
        (
            "reviews",
            reviews,
            rows(&[
                review("a", "rye", 5, "ann"),
                review("b", "rye", 2, "bob"),
                review("c", "bun", 4, "ann"),
                review("d", "tart", 1, "bob"),
            ]),
        ),
    ];
    let relations = [
        ("products", relation("category", "categories", "category_id", false)),
        ("products", relation("reviews", "reviews", "product_id", true)),
        ("reviews", relation("product", "products", "product_id", false)),
    ];
    World::of_tables(tables, &relations, rules).await
}

async fn get(world: &World, path: &str) -> serde_json::Value {
    let answer = world.get("", path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

#[tokio::test]
async fn rows_are_embedded_one_and_many() {
    let world = shop(&[]).await;
    assert_eq!(
        get(&world, "/products?select=name,category(name)&order=name").await,
        json!([
            {"name": "Bag", "category": null},
            {"name": "Bun", "category": {"name": "Sweet"}},
            {"name": "Lost", "category": null},
            {"name": "Rye", "category": {"name": "Bread"}},
            {"name": "Tart", "category": {"name": "Sweet"}},
        ])
    );
    assert_eq!(
        get(&world, "/products?id=eq.rye&select=id,opinions:reviews(author,stars,order=stars.asc)").await,
        json!([{"id": "rye", "opinions": [{"author": "bob", "stars": 2}, {"author": "ann", "stars": 5}]}])
    );
    // The other side of a relation to one, by the name of the resource, two levels deep.
    assert_eq!(
        get(&world, "/categories?select=name,products(id,reviews(count),order=id,price=gte.40)&order=id").await,
        json!([
            {"name": "Bread", "products": [{"id": "rye", "reviews": [{"count": 2}]}]},
            {"name": "Sweet", "products": [
                {"id": "bun", "reviews": [{"count": 1}]}, {"id": "tart", "reviews": [{"count": 1}]}
            ]},
        ])
    );
    assert_eq!(
        get(&world, "/categories?select=products(id,order=price.desc,limit=1)&id=eq.2").await,
        json!([{"products": [{"id": "tart"}]}]),
        "without columns of its own"
    );
    let whole = get(&world, "/products/bun?select=*,category(*)").await;
    let category = json!({"id": 2, "name": "Sweet", "public": false});
    assert_eq!(whole, json!({"id": "bun", "name": "Bun", "price": 40, "category_id": 2, "category": category}));
    for words in ["/products/bun?_expand=category", "/products/bun?_embed=category"] {
        assert_eq!(get(&world, words).await, whole, "{words}");
    }
}

#[tokio::test]
async fn related_rows_are_conditions() {
    let world = shop(&[]).await;
    let ids = async |path: &str| {
        let mut ids = world.get("", path).await.ids();
        ids.sort_unstable();
        ids
    };
    for (query, expected) in [
        ("category.name=eq.Sweet", vec!["bun", "tart"]),
        ("category.name=in.(Bread,Sweet)&price=gt.100", vec!["rye", "tart"]),
        ("reviews.stars=gte.4", vec!["bun", "rye"]),
        // One review meets both.
        ("reviews.stars=gte.4&reviews.author=eq.bob", vec![]),
        ("reviews.stars=lt.4&reviews.author=eq.bob", vec!["rye", "tart"]),
        ("select=id,category!inner(name)", vec!["bun", "rye", "tart"]),
        ("select=id,reviews!inner(id,stars=eq.1)", vec!["tart"]),
        ("category.name=eq.Nothing", vec![]),
    ] {
        let answer = world.get("", &format!("/products?{query}")).await;
        assert_eq!(answer.header("x-total-count"), expected.len().to_string(), "{query}: {}", answer.text());
        assert_eq!(ids(&format!("/products?{query}")).await, expected, "{query}");
    }
    assert_eq!(ids("/reviews?product.category.name=eq.Sweet").await, ["c", "d"]);
    let count = world.send("", "HEAD", "/products?category.name=eq.Sweet", &[], "").await;
    assert_eq!(count.header("x-total-count"), "2");
}

#[tokio::test]
async fn related_rows_have_urls_under_their_row() {
    let world = shop(&[]).await;
    let listed = world.get("", "/products/rye/reviews?order=stars.desc&limit=1&select=id").await;
    assert_eq!((listed.json(), listed.header("x-total-count")), (json!([{"id": "a"}]), "2"));
    assert!(listed.header("link").contains("</products/rye/reviews?"), "{}", listed.header("link"));
    assert_eq!(get(&world, "/products/rye/category").await["name"], "Bread");
    assert_eq!(
        get(&world, "/categories/2/products?select=id,reviews(count)&order=id").await.as_array().unwrap().len(),
        2
    );
    for (path, status) in [
        ("/products/none/reviews", 404),
        ("/products/bag/category", 404),
        ("/products/lost/category", 404),
        ("/products/rye/nothing", 404),
    ] {
        assert_eq!(world.get("", path).await.refusal().0, status, "{path}");
    }
    assert_eq!(world.send("", "POST", "/products/rye/reviews", &[], "{}").await.refusal().0, 405);
    // Rows of another owner are another list.
    let etag = |answer: &Answer| answer.header("etag").to_string();
    let (rye, bun) = (world.get("", "/products/rye/reviews").await, world.get("", "/products/bun/reviews").await);
    assert_ne!(etag(&rye), etag(&bun));
}

#[tokio::test]
async fn an_etag_and_a_position_are_about_all_resources() {
    let world = shop(&[]).await;
    let path = "/products?select=id,category(name)&id=eq.bun";
    let first = world.get("", path).await;
    let names: Vec<&str> =
        first.header("dio-position").split(';').map(|position| position.split_once('=').unwrap().0).collect();
    assert_eq!(names, ["categories", "products"]);
    let again = async |etag: &str| world.send("", "GET", path, &[("if-none-match", etag)], "").await.status;
    assert_eq!(again(first.header("etag")).await, 304);
    let patch = [("content-type", "application/json"), ("prefer", "wait=5")];
    let changed = world.send("", "PATCH", "/categories/2", &patch, r#"{"name":"Cake"}"#).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(again(first.header("etag")).await, 200);
    assert_eq!(get(&world, path).await, json!([{"id": "bun", "category": {"name": "Cake"}}]));
    let one = world.get("", "/products/bun?select=id,category(name)").await;
    world.send("", "PATCH", "/categories/2", &patch, r#"{"name":"Pie"}"#).await;
    let other = world.get("", "/products/bun?select=id,category(name)").await;
    assert_ne!(one.header("etag"), other.header("etag"));
}

#[tokio::test]
async fn all_formats_have_embedded_rows() {
    let world = shop(&[]).await;
    let path = "/products?select=id,category(name),reviews(count)&id=eq.bun&limit=5";
    let send = async |media: &str| world.send("", "GET", path, &[("accept", media)], "").await;
    assert_eq!(
        send("application/x-ndjson").await.text(),
        "{\"id\":\"bun\",\"category\":{\"name\":\"Sweet\"},\"reviews\":[{\"count\":1}]}\n"
    );
    assert_eq!(
        send("text/csv").await.text(),
        "id,category,reviews\r\nbun,\"{\"\"name\"\":\"\"Sweet\"\"}\",\"[{\"\"count\"\":1}]\"\r\n"
    );
    let cbor: CborValue = ciborium::from_reader(&*send("application/cbor").await.body).unwrap();
    let json: serde_json::Value = cbor.deserialized().unwrap();
    assert_eq!(json, get(&world, path).await);
}

#[tokio::test]
async fn links_keep_what_is_embedded() {
    let world = shop(&[]).await;
    let page = world.get("", "/products?select=id,category(name)&order=id&limit=2&category_id=not.is.null").await;
    let next = "</products?order=id&category_id=not.is.null&select=id,category(name)&limit=2&offset=2>; rel=\"next\"";
    assert!(page.header("link").contains(next), "{}", page.header("link"));
    let page = world.get("", "/products?select=id,category(name)&order=id&limit=2&after=").await;
    let next = page.header("link").split(", ").find(|link| link.ends_with("rel=\"next\"")).unwrap();
    let next = next.trim_start_matches('<').split_once('>').unwrap().0;
    assert_eq!(get(&world, next).await[1], json!({"id": "rye", "category": {"name": "Bread"}}));
}

/// Members see public categories, reviews of their own, and not the price.
fn rules() -> Vec<Allow> {
    vec![
        allow("member", "products", &[Verb::Read], "", Some(&["name", "category_id"])),
        allow("member", "categories", &[Verb::Read], "public=eq.true", Some(&["name"])),
        allow("member", "reviews", &[Verb::Read], "author=eq.{claims.owner}", Some(&["product_id", "stars"])),
        allow("narrow", "products", &[Verb::Read], "", Some(&["name"])),
        allow("narrow", "categories", &[Verb::Read], "", None),
        allow("alone", "products", &[Verb::Read], "", None),
    ]
}

#[tokio::test]
async fn the_scope_of_the_caller_applies_at_every_level() {
    let world = shop(&rules()).await;
    let member = async |path: &str| world.get("member", path).await;
    let listed = member("/products?select=id,category(*),reviews(*,order=id),n:reviews(count)&order=id").await.json();
    assert_eq!(listed[0], json!({"id": "bag", "category": null, "reviews": [], "n": [{"count": 0}]}));
    assert_eq!(listed[1]["category"], json!(null), "a row that one may not see is null");
    let rye = json!({"id": "rye", "category": {"id": 1, "name": "Bread"},
                     "reviews": [{"id": "a", "product_id": "rye", "stars": 5}], "n": [{"count": 1}]});
    assert_eq!(listed[3], rye, "nor its columns, and counts do not count it");
    for (query, expected) in [
        ("category.name=in.(Bread,Sweet)", vec!["rye"]),
        ("reviews.stars=lt.3", vec![]),
        ("select=id,reviews!inner(id)", vec!["bun", "rye"]),
        ("select=id,category!inner(id)", vec!["rye"]),
    ] {
        let mut ids = member(&format!("/products?{query}")).await.ids();
        ids.sort_unstable();
        assert_eq!(ids, expected, "{query}");
    }
    assert_eq!(member("/products/bun/category").await.status, 404);
    assert_eq!(member("/products/rye/reviews").await.ids(), ["a"]);
    for query in ["reviews.author=eq.bob", "select=id,reviews(author)", "select=id,reviews(id,order=author)"] {
        assert_eq!(member(&format!("/products?{query}")).await.refusal().1, "unknown-column", "{query}");
    }
    let refused = async |caller: &str, path: &str| world.get(caller, path).await.refusal().1;
    assert_eq!(refused("narrow", "/products?select=id,category(name)").await, "unknown-column", "its column is hidden");
    assert_eq!(refused("narrow", "/categories?select=id,products(name)").await, "unknown-column");
    for path in ["/products?select=id,category(name)", "/products?category.name=eq.Bread"] {
        assert_eq!(refused("alone", path).await, "unknown-column", "{path}");
    }
    assert_eq!(refused("alone", "/products/rye/category").await, "not-found");
    // Equal queries of other callers are other answers.
    let bob = world.get("member@bob", "/products?select=id,reviews(id)&id=eq.rye").await;
    let ann = world.get("member@ann", "/products?select=id,reviews(id)&id=eq.rye").await;
    assert_eq!(bob.json(), json!([{"id": "rye", "reviews": [{"id": "b"}]}]));
    assert_eq!(ann.json(), json!([{"id": "rye", "reviews": [{"id": "a"}]}]));
    assert_ne!(bob.header("etag"), ann.header("etag"));
}

#[tokio::test]
async fn the_schema_lists_relations_of_both_sides_as_far_as_they_are_seen() {
    let world = shop(&rules()).await;
    let references = async |caller: &str, dio: &str| {
        let schema = world.get(caller, &format!("/{dio}/_schema")).await.json();
        let each = |it: &serde_json::Value| {
            ["relation", "target", "column", "kind"].map(|name| it[name].as_str().unwrap().to_string()).join(" ")
        };
        schema["references"].as_array().unwrap().iter().map(each).collect::<Vec<_>>()
    };
    assert_eq!(
        references("root", "products").await,
        ["category categories category_id one", "reviews reviews product_id many"]
    );
    assert_eq!(references("root", "categories").await, ["products products category_id many"]);
    assert_eq!(references("root", "reviews").await, ["product products product_id one"]);
    assert_eq!(references("member", "categories").await, ["products products category_id many"]);
    assert_eq!(references("narrow", "categories").await, [""; 0], "its column is hidden");
    assert_eq!(references("alone", "products").await, [""; 0]);
}

#[tokio::test]
async fn mistakes_are_refused_with_what_to_do() {
    let world = shop(&[]).await;
    for (path, code, said) in [
        ("/products?select=id,categori(name)", "unknown-column", "did you mean \\\"category\\\""),
        ("/products?select=id,category(nam)", "unknown-column", "did you mean \\\"name\\\""),
        ("/products?select=id,category(name", "invalid-parameter", "does not end with )"),
        ("/products?select=*,name:category(name)", "invalid-parameter", "alias"),
        ("/products?select=id,category(id,limit=3)", "invalid-parameter", "no order, limit or offset"),
        ("/products?select=id,reviews(id,limit=20000)", "limit-too-large", "limit"),
        ("/products?select=id,reviews(product(category(name)))", "invalid-parameter", "2 levels"),
        ("/products?nothing.name=eq.1", "unknown-column", "nothing"),
        ("/products?select=id,category(name,name=match.[)", "invalid-parameter", "unclosed character class"),
        ("/products/live?select=id,category(name)", "invalid-parameter", "cannot be embedded here"),
        ("/products?reviews.limit=1", "unknown-parameter", "select"),
        ("/products/rye?category.name=eq.Bread", "invalid-parameter", "only parameter of a row"),
    ] {
        let answer = world.get("", path).await;
        assert_eq!(answer.refusal().1, code, "{path}: {}", answer.text());
        assert!(answer.text().contains(said), "{path}: {}", answer.text());
    }
    let export = world.send("", "GET", "/products?select=id,category(name)", &[("accept", "text/csv")], "").await;
    assert_eq!(export.refusal(), (400, "invalid-parameter".into()));
}

#[tokio::test]
async fn patterns_are_conditions_of_related_rows() {
    let world = shop(&[]).await;
    assert_eq!(
        get(&world, "/products?select=id,category(name,name=match.^B)&id=in.(rye,bun)&order=id").await,
        json!([{"id": "bun", "category": null}, {"id": "rye", "category": {"name": "Bread"}}])
    );
    assert_eq!(world.get("", "/products?category.name=imatch.^br").await.ids(), ["rye"]);
}

#[tokio::test]
async fn related_rows_are_bounded() {
    use ColumnType::{Integer, String};
    let owners: Vec<_> = (0..6_i64).map(|n| (n.to_string(), cells([("id", n.into())]))).collect();
    let part = |n: i64| (n.to_string(), cells([("id", n.into()), ("owner_id", (n % 6).into())]));
    let parts: Vec<_> = (0..60_000).map(part).collect();
    let tables = vec![
        ("owners", table(&[("id", Integer), ("name", String)]), owners),
        ("parts", table(&[("id", Integer), ("owner_id", Integer)]), parts),
    ];
    let relations = [("owners", relation("parts", "parts", "owner_id", true))];
    let world = World::of_tables(tables, &relations, &[]).await;
    for (query, said) in [
        ("parts.id=gte.0", "more than 10000 rows of parts"),
        ("select=id,parts(id,limit=10000)", "more than 50000 rows"),
    ] {
        let refused = world.get("", &format!("/owners?{query}")).await;
        assert_eq!(refused.refusal(), (400, "limit-too-large".into()), "{query}");
        assert!(refused.text().contains(said), "{query}: {}", refused.text());
    }
    assert_eq!(get(&world, "/owners?parts.id=lt.2&select=id").await, json!([{"id": 0}, {"id": 1}]));
    let counts = get(&world, "/owners?select=n:parts(count)&limit=1").await;
    assert_eq!(counts, json!([{"n": [{"count": 10_000}]}]));
}

#[tokio::test]
async fn relations_that_cannot_be_are_refused_at_the_start() {
    use diorama::connect::MemoryTable;
    use diorama::gateway::Gateway;
    let lens = std::sync::Arc::new(crate::harness::memory().build().unwrap());
    let schema = || table(&[("id", ColumnType::String), ("b", ColumnType::String), ("owner", ColumnType::String)]);
    for (relation, said) in [
        (relation("c", "nowhere", "b", false), "no resource \"nowhere\""),
        (relation("c", "a", "ownr", false), "did you mean \"owner\""),
        (relation("b", "a", "b", false), "is a column of a"),
        (relation("events", "a", "b", true), "cannot be the name"),
        (relation("x.y", "a", "b", true), "cannot be the name"),
    ] {
        let dio = lens.make_dio(MemoryTable::vista("a", schema(), Vec::new())).await.unwrap();
        let refused = Gateway::new().mount(dio.clone()).try_relate("a", relation).unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
        dio.close().await;
    }
}
