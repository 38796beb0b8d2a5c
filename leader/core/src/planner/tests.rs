//! The planner against the repository's own catalogue: scenarios as text, one room for each kind of
//! constraint, and random clusters against the check.

mod world;
mod zones;

mod anti_affinity;
mod bounds;
mod claim;
mod daemons;
mod examples;
mod free_room;
mod host_ports;
mod limits;
mod merging;
mod min_values;
mod node_selection;
mod overlays;
mod planned_room;
mod pod_affinity;
mod pool_requirements;
mod preferences;
mod price;
mod priority;
mod random;
mod repack;
mod requests;
mod reserved;
mod shares;
mod shortage;
mod spread;
mod static_pools;
mod swarms;
mod taints;
mod volumes;
mod weights;
mod zone_ids;
