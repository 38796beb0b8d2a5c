//! leader/ec2
