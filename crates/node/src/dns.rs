//! Being written by the lead engineer (27 minutes past four): do not write it a second time.
