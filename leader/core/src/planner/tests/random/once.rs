//! Clusters in which a plan was wrong once, that no seed of these tests leads to any more.

use super::{App, Case, holds};

fn case(apps: Vec<App>, pools: usize) -> Case {
    Case {
        apps,
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
    holds(&case(vec![app], 5)).unwrap();
}

#[test]
fn a_zone_counts_where_a_node_in_it_may_become_a_type_that_counts() {
    let apps = vec![
        App { count: 5, cpu: 50, memory: 64, rules: vec![(5, 3), (19, 0)] },
        App { count: 3, cpu: 50, memory: 64, rules: vec![(2, 0), (30, 0)] },
    ];
    let late = vec![App { count: 1, cpu: 3366, memory: 556, rules: Vec::new() }];
    holds(&Case { late, gone: vec![(0, 3)], ..case(apps, 9) }).unwrap();
}
