//! What people are told, as log lines.

use drover_agent_core::{Fact, permission};

pub(super) fn tell(fact: &Fact) {
    match fact {
        Fact::NoticeInForce(notice) => tracing::warn!(
            kind = ?notice.kind,
            instance = %notice.instance,
            deadline = ?notice.deadline.map(|deadline| deadline.to_string()),
            "Notice is in force."
        ),
        Fact::NoticesGone => tracing::info!("No notice is in force any more."),
        Fact::UnreadableNotice { path, reason } => {
            tracing::warn!(path = path.path(), %reason, "Notice is unreadable.");
        }
        Fact::Blind { since } => tracing::warn!(
            %since,
            "Instance metadata service tells nothing of spot notices; none would be known of."
        ),
        Fact::Sees => tracing::info!("Instance metadata service tells of spot notices again."),
        Fact::ForeignNode { provider_id } => tracing::error!(
            %provider_id,
            "Node belongs to another instance; nothing is done to it."
        ),
        Fact::NoNode(node) => tracing::warn!(
            %node,
            "There is no Node of this name; nothing is done until there is."
        ),
        Fact::TooManyPods(most) => {
            tracing::error!(
                most,
                "More pods are told of than a node can have; the rest is ignored."
            );
        }
        Fact::PodTooLarge { pod, most_bytes } => {
            tracing::error!(%pod, most_bytes, "More is told of a pod than one can have; it is ignored.");
        }
        Fact::Cordoned { after } => {
            tracing::info!(milliseconds = %after.as_millis(), "Node was cordoned.");
        }
        Fact::Uncordoned => tracing::info!("Own cordon was taken back."),
        Fact::PatchFailed(failure) => {
            tracing::warn!(%failure, "Patch of the own Node failed; retrying.");
        }
        Fact::NodeUnread(failure) => tracing::warn!(
            %failure,
            "Own Node can't be read; a leader's drain waits for it. Retrying."
        ),
        Fact::Denied(denied) => tracing::warn!(
            missing = %permission::names(denied),
            "API server does not let the agent do all that it needs; grant what deploy/manifests grants."
        ),
        Fact::Granted => tracing::info!("API server lets the agent do all that it needs by now."),
        Fact::DrainBegan(purpose) => tracing::info!(%purpose, "Drain began."),
        Fact::DrainChanged(report) => tracing::info!(
            phase = ?report.phase,
            evicted = report.evicted,
            clipped = report.clipped,
            forced = report.forced,
            remaining = report.remaining.len(),
            "Drain goes on."
        ),
        Fact::PodsLeft { pods, unnamed } => tell_left(pods, *unnamed),
        Fact::CutOff { can_power_off: true } => tracing::error!(
            "API server is out of reach or refuses everything, and only the pods' grace is left; powering off."
        ),
        Fact::CutOff { can_power_off: false } => tracing::error!(
            "API server is out of reach or refuses everything, and only the pods' grace is left; the machine can't be powered off from here, so its pods end with it."
        ),
        Fact::PowerOffFailed(reason) => {
            tracing::error!(%reason, "Machine can't be powered off; retrying.");
        }
        Fact::EventFailed(failure) => tracing::warn!(
            %failure,
            "Events on the own Node can't be made; no leader takes what is reported, so that this log alone tells."
        ),
        Fact::DrainStopped => tracing::info!("Drain was stopped because its reason went."),
    }
}

fn tell_left(pods: &[(String, String)], unnamed: usize) {
    for (pod, reason) in pods {
        tracing::warn!(%pod, %reason, "Pod has not gone yet.");
    }
    if unnamed > 0 {
        tracing::warn!(pods = unnamed, "More pods have not gone yet.");
    }
}
