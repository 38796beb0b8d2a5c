mod sockets;

use super::addresses::Addresses;
use super::*;

fn leaders() -> Leaders {
    drover_kubernetes::install_crypto_provider();
    let addresses = Addresses::of_system();
    let connecting = Connecting { trust: connecting::Trust::Nobody, addresses };
    Leaders {
        client: connecting.client(0).unwrap(),
        connecting,
        turn: 0,
        urls: ["http://a", "http://b", "http://c"].map(str::to_owned).into(),
        token: TokenSource::File(PathBuf::new()),
        current: 0,
        failures: 0,
    }
}

/// Pauses of so many failures in a row, in whole milliseconds, and who is asked after each.
fn pauses(can_wait: bool, failures: usize) -> Vec<(u128, usize)> {
    let mut leaders = leaders();
    let mut fail = || (leaders.fail_over("test", "down", can_wait).as_millis(), leaders.current);
    (0..failures).map(|_| fail()).collect()
}

#[test]
fn a_notice_is_told_to_every_leader_at_once_and_then_again_soon() {
    let pauses = pauses(false, 30);
    assert_eq!(pauses[..2], [(0, 1), (0, 2)]);
    assert!((100..=200).contains(&pauses[2].0) && pauses[2].1 == 0, "{pauses:?}");
    assert!(pauses.iter().all(|(pause, _)| *pause <= 5_000), "{pauses:?}");
}

#[test]
fn what_can_wait_turns_to_the_next_leader_too_but_not_at_once() {
    let pauses = pauses(true, 30);
    let asked: Vec<usize> = pauses.iter().take(4).map(|(_, asked)| *asked).collect();
    assert_eq!(asked, [1, 2, 0, 1]);
    assert!(pauses[..5].iter().all(|(pause, _)| (500..=1_000).contains(pause)), "{pauses:?}");
    assert!(pauses.iter().all(|(pause, _)| (500..=10_000).contains(pause)), "{pauses:?}");
    assert!(pauses[29].0 >= 5_000, "{pauses:?}");
}
