//! DhakaCart, the shop that Holdfast deploys.
