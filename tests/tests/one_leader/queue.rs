//! Without any agent, the interruption queue alone makes nodes leave in time.

use serde_json::{Value, json};

use crate::stage::{Stage, initialized};

const CLAIMS: &str = "/apis/karpenter.sh/v1/nodeclaims";

/// A counter of the leader's, all labels together.
async fn count(stage: &Stage, metric: &str) -> u64 {
    let url = format!("{}/metrics", stage.api);
    let answer = stage.http.get(url).bearer_auth("sandbox-admin").send().await.unwrap();
    let page = answer.text().await.unwrap();
    let lines = page.lines().filter(|line| line.starts_with(metric));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn leaving(claims: &[Value]) -> usize {
    claims.iter().filter(|claim| claim["metadata"]["deletionTimestamp"].is_string()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_queue_tells_is_heeded_and_deleted() {
    let stage = Stage::set(&["--interruption-queue=sandbox"]).await;
    stage.apply(&["spot"], 0).await;
    let container =
        json!({"name": "main", "image": "web", "resources": {"requests": {"cpu": "3"}}});
    let deployment = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [container]},
            },
        },
    });
    stage.create("/apis/apps/v1/namespaces/default/deployments", deployment).await;
    stage.until("/api/v1/nodes", |nodes| initialized(nodes) == 2).await;
    let instances: Vec<String> = stage
        .sandbox
        .world()
        .with(|world, _| world.cloud.instances().map(|one| one.id.to_string()).collect());
    stage.command("/interrupt", json!({"instance": instances[0]})).await;
    stage.command("/maintenance", json!({"instance": instances[1]})).await;
    // Both leave, and what takes their place is bought at once.
    stage.until(CLAIMS, |claims| leaving(claims) == 2 && claims.len() == 4).await;
    let begun = std::time::Instant::now();
    while count(&stage, "karpenter_interruption_deleted_messages_total").await
        < count(&stage, "karpenter_interruption_received_messages_total").await
        || count(&stage, "karpenter_interruption_received_messages_total").await < 6
    {
        assert!(begun.elapsed().as_secs() < 30, "messages are left");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let url = format!("{}/v1/decisions", stage.api);
    let answer = stage.http.get(url).bearer_auth("sandbox-admin").send().await.unwrap();
    let decisions = answer.text().await.unwrap();
    for why in ["spot-terminate notice", "maintenance notice"] {
        assert!(
            decisions.contains(&format!("{why}, told by the interruption queue")),
            "{decisions}"
        );
    }
    stage.stop.cancel();
}
