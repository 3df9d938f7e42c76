//! A whole cluster in one process: the API server, the controllers and a node, with this very program in the place
//! of images.

mod fixture;
mod harness;
mod lifecycle;
mod rollouts;
mod traffic;
