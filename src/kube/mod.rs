//! The Kubernetes side: kubeconfig, HTTP client and the three watchers. No rules of the contract live here.
