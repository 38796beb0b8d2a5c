//! The agent's own page of metrics.

use std::net::SocketAddr;
use std::time::Instant;

use super::world::World;
use super::*;

async fn page(address: SocketAddr) -> Option<String> {
    let answer = reqwest::get(format!("http://{address}/metrics")).await.ok()?;
    answer.error_for_status().ok()?.text().await.ok()
}

#[tokio::test]
async fn an_agent_whose_port_is_taken_guards_its_node_and_serves_once_it_is_free() {
    let world = World::new(&["web-0"]).await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let config = Config { metrics_address: Some(address), ..world.config("") };
    let agent = world.start_agent_with(config);
    world.until("the agent watches", |state| state.watches >= 2).await;
    world.announce("terminate", 110);
    world.until("the pod is evicted", |state| !state.evicted.is_empty()).await;
    drop(taken);
    let began = Instant::now();
    let expected = [
        "drover_notices_in_force{kind=\"spot-terminate\"} 1",
        "drover_drain_pods_total{how=\"evicted\"} 1",
        "karpenter_nodes_drained_total{nodepool=\"\"} 1",
        "drover_notice_cordon_seconds_count 1",
        "drover_agent_has_node 1",
        "drover_agent_heard 0",
    ];
    loop {
        let page = page(address).await.unwrap_or_default();
        let missing = expected.iter().find(|line| !page.lines().any(|one| one == **line));
        let Some(missing) = missing else { break };
        assert!(began.elapsed() < Duration::from_secs(20), "never {missing} in {page}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    agent.stop().await;
    assert!(page(address).await.is_none(), "its tasks end with the agent");
}
