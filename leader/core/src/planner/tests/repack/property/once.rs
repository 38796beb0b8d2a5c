//! Clusters that were repacked wrongly once.

use super::{PodPlan, cluster};

/// Nodes are told as type/zone, pods as app/cpu/memory/node; `kinds` are the constraints of each app.
fn holds(nodes: &str, pods: &str, kinds: [usize; 8]) {
    let of = |word: &str| word.parse().unwrap();
    let node = |text: &str| match text.split('/').collect::<Vec<_>>()[..] {
        [kind, zone] => (of(kind), of(zone), false),
        [kind, zone, "spot"] => (of(kind), of(zone), true),
        _ => panic!("{text}"),
    };
    let pod = |text: &str| match text.split('/').map(of).collect::<Vec<usize>>()[..] {
        [app, cpu, memory, node] => {
            let amount = |amount: usize| u32::try_from(amount).unwrap();
            PodPlan { app, cpu: amount(cpu), memory: amount(memory), node }
        }
        _ => panic!("{text}"),
    };
    let nodes: Vec<_> = nodes.split(' ').map(node).collect();
    let pods: Vec<_> = pods.split(' ').map(pod).collect();
    // The check is inside.
    cluster(&nodes, &pods, &kinds, "20%", &[]).repack();
}

#[test]
fn pods_near_each_other_leave_in_turn() {
    holds(
        "1/0 1/1 1/0 1/1 0/0 1/0 0/0 0/0 3/0 0/2 5/1 4/0",
        "0/20/32/0 0/20/32/8 0/20/32/0 0/20/32/0 4/20/32/8 0/20/32/0 0/583/32/8 0/20/32/0 \
         1/20/32/0 0/20/32/0 0/20/32/0 0/20/32/4 0/721/32/8 2/20/32/2 0/1278/32/8 4/1299/32/5 \
         1/20/32/3 0/20/32/1 0/20/75/1",
        [4, 0, 7, 0, 8, 0, 0, 0],
    );
}

#[test]
fn what_goes_last_is_right_alone_though_batches_were_tried_one_after_the_other() {
    holds(
        "1/2 5/1/spot 0/0 0/2 0/0 1/1 0/0 1/1/spot 0/0 0/0 0/0",
        "0/20/32/2 1/103/32/1 0/20/32/2 1/374/32/12 0/20/32/0 3/1473/32/0 3/923/288/7 \
         0/20/1419/5 0/20/32/2 1/20/32/0 1/20/32/7 1/20/32/6 0/350/32/8 4/489/32/0 3/490/32/0 \
         1/1468/32/1 1/744/32/12 3/909/32/7 0/20/32/2 0/766/32/2 3/231/32/12 3/1323/32/5",
        [4, 1, 0, 8, 0, 0, 0, 0],
    );
}
