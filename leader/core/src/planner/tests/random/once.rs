//! Clusters in which a plan was wrong once, that no seed of these tests leads to any more.

use super::{App, Case, holds, holds_where};

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

#[test]
fn one_pod_on_a_reserved_gpu_node_does_not_send_the_others_to_large_ones() {
    // In the second zone nothing but a reservation of one g5.xlarge is left.
    let apps = vec![App { count: 5, cpu: 50, memory: 64, rules: vec![(2, 2)] }];
    let gone = vec![(1, 1), (0, 1)];
    holds(&Case { gone, reservations: vec![(3, 1, 1)], ..case(apps, 2) }).unwrap();
}

#[test]
fn a_node_goes_where_there_are_enough_values_if_not_where_its_cheapest_type_is() {
    // A daemon of the third zone leaves three pods too little room on the type that holds them in the second, which
    // has but two families.
    let apps = vec![App { count: 3, cpu: 2437, memory: 64, rules: vec![(19, 4)] }];
    let (gone, reservations) = (vec![(0, 3), (1, 0)], vec![(3, 2, 1)]);
    let case = Case { gone, reservations, daemons: 1, daemons_of_offerings: 1, ..case(apps, 5) };
    holds(&case).unwrap();
}

#[test]
fn a_launch_of_one_capacity_type_has_enough_values_by_itself() {
    // Spot and on demand have three families together, and either has two in some zones: nodes were planned that could not
    // be launched, and the others of a spread were alone.
    let small = || App { count: 1, cpu: 50, memory: 64, rules: Vec::new() };
    let apart = App { count: 2, cpu: 715, memory: 13202, rules: vec![(8, 0), (25, 0)] };
    let spread = App { count: 4, cpu: 2921, memory: 705, rules: vec![(0, 2)] };
    let apps = vec![small(), apart, small(), small(), spread];
    let running = vec![(2, 50, 0), (4, 50, 1)];
    let case = Case { nodes: 1, running, daemons: 2, daemons_of_offerings: 3, ..case(apps, 13) };
    holds(&case).unwrap();
}

#[test]
fn a_pod_that_was_launched_for_keeps_its_node_though_an_equal_one_could_go_elsewhere() {
    // Its seat is right once the equal one is in the zone that has none yet.
    let app = |count, cpu, memory, rules: &[(usize, usize)]| App {
        count,
        cpu,
        memory,
        rules: rules.to_vec(),
    };
    let apps = vec![
        app(5, 2098, 10340, &[(15, 7)]),
        app(4, 1978, 64, &[(4, 1), (8, 0)]),
        app(4, 1343, 13436, &[(15, 6), (2, 0)]),
        app(3, 1052, 2748, &[]),
        app(2, 3814, 5496, &[]),
        app(2, 1013, 12970, &[(14, 5)]),
    ];
    let running = vec![(1, 780, 0)];
    let case = Case { nodes: 3, running, daemons: 1, daemons_of_offerings: 1, ..case(apps, 8) };
    holds_where(&case, false).unwrap();
}
