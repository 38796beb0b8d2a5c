//! From an EC2NodeClass to what is launched: which subnets, security groups and images it means,
//! what instance types are like under it, and the launch template of a node.

pub mod catalog;
mod facts;
mod hash;
mod image;
mod refusal;
mod reservation;
mod resolve;
mod selection;
mod template;
mod user_data;

pub use catalog::{CatalogFlags, NodeClassCatalog, catalog, node_settings};
pub use facts::CloudFacts;
pub use hash::{HASH_VERSION, node_class_hash, node_pool_hash};
pub use image::ResolvedImage;
pub use reservation::ResolvedReservation;
pub use resolve::{ResolvedClass, resolve};
pub use selection::{ClassAnswers, class_calls};
pub use template::{
    ClusterSettings, NodeRegistration, TEMPLATE_PREFIX, launch_template, resource_tags,
};
pub use user_data::UserDataError;

#[cfg(test)]
mod tests;
