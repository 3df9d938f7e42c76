//! The reconciler daemon and command line: every input and output of Holdfast.
