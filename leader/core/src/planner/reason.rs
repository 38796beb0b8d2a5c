//! Why a pod is left, NodePool by NodePool, in words that one can act on.

mod place;

use drover_common::id::NodePoolName;
use drover_common::labels;
use drover_common::requirement::Requirement;
use drover_common::resources::{ResourceName, format_amount};
use fixedbitset::FixedBitSet;

use super::attach::driver_of;
use super::board::Board;
use super::group::Group;
use super::market::Pool;
use super::matching::{fulfils, requirement_text, taint_text};
use super::rules::{NAMES_A_NODE, name_nodes};

/// Names that a reason lists at most.
const MOST_NAMES: usize = 3;

impl Board<'_> {
    /// Reasons why pods of a group are left.
    pub(super) fn reasons(&mut self, group: usize) -> Vec<(NodePoolName, String)> {
        let mut reasons: Vec<(NodePoolName, String)> = self.market.refused.clone();
        for pool in 0..self.market.pools.len() {
            let Some(name) = self.market.pools.get(pool).map(|pool| pool.name.clone()) else {
                continue;
            };
            let reason = self.reason(group, pool);
            reasons.push((name, reason));
        }
        if reasons.is_empty() {
            let none = "there is no NodePool, and no node has room".to_owned();
            reasons.push((NodePoolName::default(), none));
        }
        reasons.sort();
        reasons
    }

    fn reason(&mut self, group: usize, pool: usize) -> String {
        let Some((entry, pool)) = self.groups.get(group).zip(self.market.pools.get(pool)) else {
            return String::new();
        };
        let (entry, pool) = (entry.clone(), pool.clone());
        let Some(rules) = entry.variant().map(|variant| variant.rules.clone()) else {
            return String::new();
        };
        if let Some(taint) = rules.repelled_by(&pool.taints) {
            return format!("does not tolerate the NodePool's taint {}", taint_text(taint));
        }
        if let Some(reason) = pool.fruitless {
            return reason;
        }
        let mut labelled = rules.offers(&self.market, &mut self.index);
        keep_range(&mut labelled, &pool);
        if labelled.is_clear() {
            return self.label_reason(&rules.all, &rules.any, &pool);
        }
        let mut possible = entry.possible.clone();
        keep_range(&mut possible, &pool);
        if possible.is_clear() {
            return self.room_reason(&entry, &labelled);
        }
        let mut offers = entry.offers.clone();
        keep_range(&mut offers, &pool);
        let sold = if offers.is_clear() { &possible } else { &offers };
        if let Some(reason) = self.full_reservations(sold) {
            return reason;
        }
        if offers.is_clear() {
            return self.shortage_reason(&entry, &pool, &possible);
        }
        if let Some(port) = self.daemons_port(&entry, &offers) {
            return format!("its host port {port} is taken by a DaemonSet on every type that fits");
        }
        let limited: Vec<usize> =
            offers.ones().filter(|offer| self.can_have(*offer, None)).collect();
        if limited.is_empty() && pool.is_cut {
            return "its limits leave too few types to choose from (minValues)".to_owned();
        }
        if limited.is_empty() {
            return self.limit_reason(&pool, &offers);
        }
        if let Some((key, least, found)) = self.missing_values(&pool, &offers) {
            return format!(
                "needs {least} values of {key} (minValues) and only {found} fit the pod"
            );
        }
        self.topology_reason(&entry, &offers)
    }

    /// A host port of the group that daemons take on every kind of node among some offers.
    fn daemons_port(&self, group: &Group, offers: &FixedBitSet) -> Option<i32> {
        let taken = |own: &crate::view::HostPort| {
            offers
                .ones()
                .filter_map(|offer| self.market.kind_of(offer))
                .all(|kind| kind.daemon_ports.iter().any(|port| own.conflicts(port)))
        };
        group.shape.ports.iter().find(|own| taken(own)).map(|own| own.port)
    }

    fn label_reason(
        &mut self,
        all: &[Requirement],
        any: &[Vec<Vec<Requirement>>],
        pool: &Pool,
    ) -> String {
        for requirement in all {
            let mask = self.index.mask(&self.market, requirement);
            if pool.offers.clone().all(|offer| !mask.contains(offer)) {
                return self.missing_label(requirement, pool);
            }
        }
        for alternatives in any {
            if alternatives.is_empty() {
                return "its required node affinity has no term with an expression, and so matches \
                        no node"
                    .to_owned();
            }
            if name_nodes(alternatives) {
                return NAMES_A_NODE.to_owned();
            }
            if let [only] = alternatives.as_slice()
                && let [requirement] = only.as_slice()
            {
                let mask = self.index.mask(&self.market, requirement);
                if pool.offers.clone().all(|offer| !mask.contains(offer)) {
                    return self.missing_label(requirement, pool);
                }
            }
        }
        let all = all.iter().map(requirement_text);
        let any = any.iter().map(|terms| {
            let each = terms
                .iter()
                .map(|term| term.iter().map(requirement_text).collect::<Vec<_>>().join(" and "));
            format!("({})", each.collect::<Vec<_>>().join(" or "))
        });
        let rules: Vec<String> = all.chain(any).collect();
        let more = match pool.looks_at_all {
            true => "",
            false => {
                "; pods name so many labels of the NodePool that the rest waits until those run"
            }
        };
        format!("no instance type and zone together fulfil {}{more}", rules.join(", "))
    }

    fn missing_label(&mut self, requirement: &Requirement, pool: &Pool) -> String {
        let values: Vec<String> = self
            .index
            .values(&self.market, &requirement.key)
            .iter()
            .filter(|(_, bits)| pool.offers.clone().any(|offer| bits.contains(offer)))
            .map(|(value, _)| value.clone())
            .collect();
        let wanted = requirement_text(requirement);
        if requirement.key == labels::HOSTNAME {
            return format!(
                "needs {wanted}; what a new node is called is not known before it joins"
            );
        }
        let open = |own: &Requirement| {
            own.key == requirement.key && requirement.values.iter().any(|v| fulfils(own, Some(v)))
        };
        if !pool.looks_at_all && pool.requirements.iter().any(open) {
            let count = values.len();
            return format!(
                "needs {wanted}; pods name so many labels of the NodePool that {count} of its values \
                 are looked at now, and the rest waits until those run"
            );
        }
        match values.as_slice() {
            [] => format!("needs {wanted}; its nodes have no such label"),
            some => format!("needs {wanted}; its nodes have {}", list(some)),
        }
    }

    /// Which resource is too much for every type.
    fn room_reason(&self, group: &Group, labelled: &FixedBitSet) -> String {
        let kinds: std::collections::BTreeSet<usize> = labelled
            .ones()
            .filter_map(|offer| self.market.offers.get(offer).map(|offer| offer.kind))
            .collect();
        for (index, name) in self.dimensions.names().iter().enumerate() {
            let wanted = group.request.get(index).copied().unwrap_or(0);
            let rooms = kinds.iter().filter_map(|kind| self.market.kinds.get(*kind));
            let best = rooms.map(|kind| (kind.room.get(index).copied().unwrap_or(0), kind)).max_by(
                |a, b| a.0.cmp(&b.0).then(b.1.instance_type.name.cmp(&a.1.instance_type.name)),
            );
            if let Some((most, kind)) = best
                && wanted > most
            {
                if let Some(driver) = driver_of(name) {
                    return format!(
                        "has {wanted} volumes of {driver}; the type allowed that takes the most, {}, takes {most}",
                        kind.instance_type.name
                    );
                }
                let wanted = told_amount(name, wanted);
                if most <= 0 {
                    return format!("needs {wanted} {name}; no type allowed offers any");
                }
                return format!(
                    "needs {wanted} {name}; the largest type allowed, {}, offers {} to pods",
                    kind.instance_type.name,
                    format_amount(name, most)
                );
            }
        }
        format!(
            "needs {} at once; no type allowed offers all of it",
            self.dimensions.sparse(&group.request)
        )
    }

    fn limit_reason(&self, pool: &Pool, offers: &FixedBitSet) -> String {
        if pool.nodes_left.is_some_and(|left| left < 1) {
            return "the NodePool's limit of nodes is reached".to_owned();
        }
        for (index, left) in pool.left.iter().enumerate() {
            let Some((left, name)) = left.zip(self.dimensions.names().get(index)) else { continue };
            let smallest = offers
                .ones()
                .filter_map(|offer| self.market.kind_of(offer)?.capacity.get(index).copied())
                .min()
                .unwrap_or(0);
            if smallest > left {
                return format!(
                    "the NodePool's limit leaves {} {name}; the smallest type that fits has {}",
                    format_amount(name, left.max(0)),
                    format_amount(name, smallest)
                );
            }
        }
        "the NodePool's limits leave room for no type that fits".to_owned()
    }
}

/// An amount as Kubernetes prints it. What has no end in our numbers is not told to the last digit.
fn told_amount(name: &ResourceName, amount: i64) -> String {
    const ROUND: i64 = 1_000 << 40;
    match amount {
        i64::MAX => format!("more than {}", format_amount(name, i64::MAX / ROUND * ROUND)),
        _ => format_amount(name, amount),
    }
}

fn keep_range(offers: &mut FixedBitSet, pool: &Pool) {
    let mut range = FixedBitSet::with_capacity(offers.len());
    range.insert_range(pool.offers.clone());
    offers.intersect_with(&range);
}

pub(super) fn list(names: &[String]) -> String {
    let shown = names.iter().take(MOST_NAMES).cloned().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(MOST_NAMES) {
        Some(more @ 1..) => format!("{shown} and {more} more"),
        _ => shown,
    }
}
