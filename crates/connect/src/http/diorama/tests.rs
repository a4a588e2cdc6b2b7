use async_trait::async_trait;
use diorama_core::Dio;
use diorama_core::lens::Lens;

use super::*;
use crate::contract::feed::feeds;
use crate::ws::double::{Double, Follow, Sending};

/// A resource of another Diorama, which it follows by its events.
struct Leader;

#[async_trait]
impl Follow for Leader {
    async fn follow(&self, lens: &Lens, double: &Double) -> Dio {
        let options = HttpOptions { one: Some("/{id}".into()), ..HttpOptions::default() };
        let (url, options) = parse_url(&format!("http://{}", double.place()), options).unwrap();
        let source = OtherDiorama { url, options };
        let feed = Source::follow(&source, "t", FollowMode::Auto).unwrap();
        feed.prepare();
        let request = SourceRequest { name: "t".into(), ..SourceRequest::default() };
        let dio = lens.dio(source.open(request).await.unwrap()).make().await.unwrap();
        feed.start(&dio, FeedFormat::Diorama).unwrap();
        dio
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_another_diorama_keep_the_contract_of_feeds() {
    feeds(Sending { double: Double::start(true).await, follow: Leader }).await;
}
