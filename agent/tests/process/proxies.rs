//! What an agent asks is near, or takes nobody between: the environment's proxies are for others.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_proxy_of_the_environment_is_asked() {
    let world = World::new().await;
    // Nobody listens there.
    let proxy = "http://127.0.0.1:9";
    let gpus = format!("{}/gpu", world.url);
    let agent = world.start(&[
        ("HTTP_PROXY", proxy),
        ("http_proxy", proxy),
        ("HTTPS_PROXY", proxy),
        ("https_proxy", proxy),
        ("ALL_PROXY", proxy),
        ("all_proxy", proxy),
        ("DROVER_LEADERS", &world.url),
        ("DROVER_GPU_METRICS", &gpus),
    ]);
    world.announce(110);
    let began = Instant::now();
    let missing = loop {
        let missing: Vec<&str> = {
            let state = world.state.lock().unwrap();
            let asked = |path: &str| state.asked.contains(path);
            [
                ("metadata service and API server", state.cordons > 0),
                ("leaders by reports", asked("/agent/v1/reports")),
                ("leaders by polls", asked("/agent/v1/directives")),
                ("exporter of GPU metrics", asked("/gpu")),
            ]
            .into_iter()
            .filter_map(|(who, is_asked)| (!is_asked).then_some(who))
            .collect()
        };
        if missing.is_empty() || began.elapsed() > Duration::from_secs(15) {
            break missing;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(missing, [] as [&str; 0], "{}", world.log());
    agent.stop().await;
}
