//! The running program: the reconciler thread and the supervision of all threads.
