//! common/kubernetes
