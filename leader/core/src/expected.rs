//! Pods that are not there and are planned for all the same: replicas that owners are yet to make, and
//! the room that CapacityBuffers keep free.

mod buffer;
mod sibling;

use jiff::Timestamp;

pub(crate) use buffer::{buffer_prefix, is_buffered, read_buffer};

use crate::planner::VirtualPods;
use crate::view::View;

/// So many pods of one owner or buffer are planned for at once: whoever types a nought too many is not to exhaust
/// the memory of each leader in turn. What an owner makes beyond is planned for once it is there.
const MOST_OF_ONE: usize = 10_000;
/// And so many of all.
const MOST_OF_ALL: usize = 100_000;

/// All of them.
pub(crate) fn expected_pods(view: &View, now: Timestamp) -> Vec<VirtualPods> {
    let mut pods = sibling::siblings_to_come(view, now);
    pods.extend(buffer::buffered_pods(view));
    let mut room = MOST_OF_ALL;
    for group in &mut pods {
        group.keys.truncate(room);
        room -= group.keys.len();
    }
    pods.retain(|group| !group.keys.is_empty());
    pods
}
