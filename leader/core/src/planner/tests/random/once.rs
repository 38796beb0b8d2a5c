//! Clusters in which a plan was wrong once, that no seed of these tests leads to any more.

use super::{App, Case, holds};

fn case(app: App, pools: usize) -> Case {
    Case {
        apps: vec![app],
        late: Vec::new(),
        nodes: 0,
        running: Vec::new(),
        pools,
        daemons: 0,
        daemons_of_offerings: 0,
        gone: Vec::new(),
        reservations: Vec::new(),
        best_effort: false,
    }
}

#[test]
fn a_soft_spread_over_one_zone_is_decided_on_the_way_there() {
    let app = App { count: 1, cpu: 50, memory: 64, rules: vec![(2, 0), (23, 0)] };
    holds(&case(app, 5)).unwrap();
}
