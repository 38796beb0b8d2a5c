//! Pods that are not there and are planned for all the same: replicas that owners are yet to make, and
//! the room that CapacityBuffers keep free.

mod buffer;
mod sibling;

use jiff::Timestamp;

pub(crate) use buffer::{buffer_prefix, is_buffered, read_buffer};

use crate::planner::VirtualPods;
use crate::view::View;

/// All of them.
pub(crate) fn expected_pods(view: &View, now: Timestamp) -> Vec<VirtualPods> {
    let mut pods = sibling::siblings_to_come(view, now);
    pods.extend(buffer::buffered_pods(view));
    pods
}
