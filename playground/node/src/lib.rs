//! A node that runs pods as local processes, and the Ingress in front of them.
