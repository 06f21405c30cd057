//! k8slab's own cluster, as a provider.
