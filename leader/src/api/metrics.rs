//! `/metrics` in Prometheus' text format. Names are Karpenter's where the meaning is the same.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use drover_common::ec2::QueueEventKind;
use drover_common::metrics::{Page, TEXT_FORMAT};
use drover_core::control::Status;
use drover_raft::{GroupStatus, Role};

use super::status::dollars;
use super::{ApiError, Shared};
use crate::run::Counters;

pub(super) async fn metrics(State(shared): State<Shared>) -> Result<Response, ApiError> {
    let status = shared.brain.status().await?;
    let mut page = Page::default();
    write_cluster(&mut page, &status);
    status.told.write(&mut page, status.draining_pods);
    write_queue(&mut page, &status);
    write_consolidation(&mut page, &status);
    write_raft(&mut page, &shared.group.status(), shared.is_leading());
    page.gauge(
        "drover_raft_slowest_flush_seconds",
        "The slowest write to the Raft log's disk since the last scrape.",
        shared.group.slowest_flush_millis() as f64 / 1e3,
    );
    write_counters(&mut page, &shared.counters);
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], page.into_text()).into_response())
}

fn write_cluster(page: &mut Page, status: &Status) {
    page.gauge(
        "karpenter_scheduler_queue_depth",
        "Pods that the scheduler found no place for.",
        status.view.unschedulable_pods,
    );
    page.gauge(
        "karpenter_scheduler_unschedulable_pods_count",
        "Pods that the last plan found no place for.",
        status.unschedulable_count,
    );
    page.head(
        "drover_bindings_total",
        "counter",
        "Planned pods that the scheduler bound, by whether it bound them where they were planned.",
    );
    page.line("drover_bindings_total", &[("as_planned", "true")], status.bindings_followed);
    page.line("drover_bindings_total", &[("as_planned", "false")], status.bindings_diverged);
    page.head(
        "drover_plan_checks_total",
        "counter",
        "Plans judged before they were acted on, by purpose and verdict.",
    );
    for (purpose, checks) in &status.plan_checks {
        let verdicts =
            [("sound", checks.sound), ("broken", checks.broken), ("skipped", checks.skipped)];
        for (verdict, count) in verdicts {
            let labels = [("purpose", purpose.as_str()), ("verdict", verdict)];
            page.line("drover_plan_checks_total", &labels, count);
        }
    }
    page.gauge("karpenter_nodepools_count", "NodePools.", status.view.pools);
    page.gauge("drover_cluster_pods", "Pods in the view.", status.view.pods);
    page.gauge("drover_cluster_pod_shapes", "Distinct pod shapes.", status.view.shapes);
    page.gauge("drover_cluster_nodes", "Nodes in the view.", status.view.nodes);
    page.head("drover_nodeclaims", "gauge", "NodeClaims by stage.");
    for (stage, count) in &status.claims {
        let stage = format!("{stage:?}").to_lowercase();
        page.line("drover_nodeclaims", &[("stage", &stage)], count);
    }
    page.gauge("drover_intents_open", "Launches without an outcome.", status.intents_open);
    page.gauge("drover_disruptions", "Disruptions under way.", status.disruptions);
    page.gauge(
        "drover_offerings_unavailable",
        "Offerings left alone because EC2 could not give them.",
        status.offerings_unavailable,
    );
    page.gauge("drover_agents_live", "Agents heard of lately.", status.agents);
    page.gauge(
        "drover_agents_blind",
        "Agents heard of lately that IMDS tells nothing, so that they would know of no notice.",
        status.agents_blind,
    );
    page.gauge(
        "drover_cost_per_hour_dollars",
        "Sum of the prices of all instances.",
        dollars(status.hourly_price_micro),
    );
    page.gauge("drover_paused", "Whether an operator paused everything.", u8::from(status.paused));
    page.gauge(
        "karpenter_cluster_state_synced",
        "Whether every watch was listed and none is broken.",
        u8::from(status.synced && !status.stale),
    );
    page.gauge("drover_problems", "Things that do not work.", status.problems.len());
}

fn write_queue(page: &mut Page, status: &Status) {
    let counts = &status.queue;
    let received = "karpenter_interruption_received_messages_total";
    page.head(received, "counter", "Messages of the interruption queue, by what they tell.");
    for kind in QueueEventKind::ALL {
        let count = counts.received.get(&kind).copied().unwrap_or(0);
        page.line(received, &[("message_type", kind.name())], count);
    }
    page.counter(
        "karpenter_interruption_deleted_messages_total",
        "Messages of the interruption queue that were heeded and deleted.",
        counts.deleted,
    );
    let delay = "karpenter_interruption_message_queue_duration_seconds";
    page.histogram(delay, "Time that messages took from EventBridge to here.", &counts.delays);
}

fn write_consolidation(page: &mut Page, status: &Status) {
    let counts = &status.consolidation;
    let decisions = "karpenter_voluntary_disruption_decisions_total";
    page.head(decisions, "counter", "Voluntary disruptions decided by this leader.");
    for (reason, decision, kind, count) in [
        ("empty", "delete", "empty", counts.empty),
        ("underutilized", "delete", "multi", counts.deleted),
        ("underutilized", "replace", "multi", counts.replaced),
    ] {
        let labels = [("reason", reason), ("decision", decision), ("consolidation_type", kind)];
        page.line(decisions, &labels, count);
    }
    page.counter(
        "karpenter_voluntary_disruption_failed_validations_total",
        "Voluntary disruptions given up before their drain began.",
        counts.given_up,
    );
    page.counter("drover_repacks_total", "Repacks planned by this leader.", counts.repacks);
    if let Some(repack) = &status.last_repack {
        let eligible = "karpenter_voluntary_disruption_eligible_nodes";
        page.head(eligible, "gauge", "Nodes that the last repack could have taken down.");
        page.line(eligible, &[("reason", "underutilized")], repack.candidates);
        page.gauge(
            "drover_repack_savings_per_hour_dollars",
            "What the last repack would save in all.",
            repack.saving_micro as f64 / 1e6,
        );
    }
    let allowed = "karpenter_nodepools_allowed_disruptions";
    page.head(allowed, "gauge", "Nodes that a NodePool's budgets let go now.");
    for (pool, by_reason) in &status.allowed_disruptions {
        for (reason, count) in by_reason {
            page.line(allowed, &[("nodepool", pool.as_str()), ("reason", reason)], count);
        }
    }
}

fn write_raft(page: &mut Page, raft: &GroupStatus, leading: bool) {
    page.gauge("drover_raft_leading", "Whether this replica leads.", u8::from(leading));
    page.head("drover_raft_role", "gauge", "What this replica is in the group.");
    for (role, name) in [
        (Role::Leader, "leader"),
        (Role::Follower, "follower"),
        (Role::Candidate, "candidate"),
        (Role::Learner, "learner"),
        (Role::Stopped, "stopped"),
    ] {
        page.line("drover_raft_role", &[("role", name)], u8::from(raft.role == role));
    }
    page.gauge(
        "drover_raft_has_leader",
        "Whether a leader is known.",
        u8::from(raft.leader.is_some()),
    );
    page.gauge("drover_raft_term", "The term.", raft.term);
    page.gauge("drover_raft_voters", "Voters in the group.", raft.voters.len());
    page.gauge("drover_raft_last_log_index", "Last entry of the log.", raft.last_log);
    page.gauge("drover_raft_committed_index", "Last committed entry.", raft.committed);
    page.gauge("drover_raft_applied_index", "Last applied entry.", raft.applied);
    page.gauge("drover_raft_snapshot_index", "Last entry of the snapshot.", raft.snapshot);
    if !raft.followers.is_empty() {
        page.head("drover_raft_follower_lag", "gauge", "Entries a follower is not known to have.");
        for (replica, matching) in &raft.followers {
            let lag = raft.last_log.saturating_sub(*matching);
            page.line("drover_raft_follower_lag", &[("replica", &replica.to_string())], lag);
        }
    }
}

fn write_counters(page: &mut Page, counters: &Counters) {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let seconds = |counter: &AtomicU64| read(counter) as f64 / 1e6;
    page.counter(
        "karpenter_nodeclaims_created_total",
        "NodeClaims created by this replica.",
        read(&counters.claims_created),
    );
    page.counter(
        "karpenter_nodeclaims_terminated_total",
        "NodeClaims deleted by this replica.",
        read(&counters.claims_deleted),
    );
    page.counter("drover_agent_reports_total", "Agents' reports taken.", read(&counters.reports));
    page.counter(
        "drover_agent_refusals_total",
        "Agents' requests that were not let in.",
        read(&counters.agents_refused),
    );
    page.head("drover_raft_proposals_total", "counter", "Commands by what became of them.");
    for (result, counter) in [
        ("committed", &counters.proposals_committed),
        ("failed", &counters.proposals_failed),
        ("refused", &counters.proposals_refused),
    ] {
        page.line("drover_raft_proposals_total", &[("result", result)], read(counter));
    }
    page.head("drover_decide_duration_seconds", "summary", "Time spent deciding.");
    page.line("drover_decide_duration_seconds_sum", &[], seconds(&counters.step_micros));
    page.line("drover_decide_duration_seconds_count", &[], read(&counters.steps));
    page.gauge(
        "drover_decide_longest_seconds",
        "The longest decision so far.",
        seconds(&counters.longest_step_micros),
    );
    page.head("drover_call_duration_seconds", "summary", "Calls to Kubernetes and AWS.");
    for ((party, call, result), (count, took)) in counters.calls() {
        let labels = [("party", party), ("call", call), ("result", result)];
        page.line("drover_call_duration_seconds_sum", &labels, took);
        page.line("drover_call_duration_seconds_count", &labels, count);
    }
}
