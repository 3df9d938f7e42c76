//! Evidence against real repositories.
