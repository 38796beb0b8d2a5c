//! What an agent says of what the API server lets it do.

use axum::http::StatusCode;

use super::*;

impl World {
    pub(super) async fn review(&self, body: Body) -> Response {
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let review: Value = serde_json::from_slice(&body).unwrap();
        let mut state = self.state.lock().unwrap();
        state.reviews += 1;
        let Some(denies) = state.denies else { return StatusCode::NOT_FOUND.into_response() };
        let asked = &review["spec"]["resourceAttributes"];
        let text = |of: &str| asked[of].as_str().unwrap_or_default();
        let (verb, resource, part) = (text("verb"), text("resource"), text("subresource"));
        assert!(
            resource != "nodes" || text("name") == "n",
            "a kubelet may ask for no other: {review}"
        );
        let wanted = format!("{verb} {resource}/{part}");
        let allowed = !denies.contains(&wanted.trim_end_matches('/'));
        axum::Json(json!({"kind": review["kind"], "status": {"allowed": allowed}})).into_response()
    }
}

const SAYS: &str = "API server does not let the agent do all that it needs";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_api_server_does_not_allow_is_named_once_and_the_node_is_guarded() {
    let world = World::new().await;
    world.state.lock().unwrap().denies = Some(&["create pods/eviction", "delete pods"]);
    let agent = world.start(&[]);
    world.announce(110);
    world.until("the node is cordoned", |state| state.cordons > 0).await;
    world.until("all was asked", |state| state.reviews >= 9).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let log = world.log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains(SAYS)).collect();
    assert_eq!(said.len(), 1, "{log}");
    assert!(said[0].contains("create pods/eviction, delete pods"), "{log}");
    assert!(!said[0].contains("nodes"), "{log}");
    assert_eq!(world.state.lock().unwrap().reviews, 9, "once each");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_allows_all_or_does_not_say_is_no_reason_to_warn() {
    for denies in [Some(&[][..]), None] {
        let world = World::new().await;
        world.state.lock().unwrap().denies = denies;
        let agent = world.start(&[]);
        world.announce(110);
        world.until("the pod is evicted", |state| state.evicted > 0).await;
        world.until("it was asked", |state| state.reviews > 0).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!world.log().contains(SAYS), "{}", world.log());
        agent.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validate_names_what_is_not_allowed_and_lets_the_unit_start() {
    let world = World::new().await;
    let said = |denies| {
        world.state.lock().unwrap().denies = denies;
        let (good, said) = units::validate(&world, &[]);
        assert!(good, "{said}");
        said
    };
    let denied = said(Some(&["patch nodes"][..]));
    assert!(denied.contains("warning: the API server does not allow: patch nodes"), "{denied}");
    assert!(!said(Some(&[][..])).contains("the API server"));
    let unknown = said(None);
    assert!(unknown.contains("unknown: what the API server allows"), "{unknown}");
}
