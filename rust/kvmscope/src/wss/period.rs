// SPDX-License-Identifier: GPL-2.0

//! One period of one VM, wherever it comes from: the kernel or a recording.

use crate::snapshot::{About, VmId};
use crate::wss::estimate::Estimate;
use crate::wss::pages::Pages;

#[derive(Clone, Debug, PartialEq)]
pub struct Period {
    /// When it was read, since the Unix epoch.
    pub time_ns: u64,
    pub vm: VmId,
    pub about: About,
    pub estimate: Estimate,
    /// None where they were not wanted, or gone before they could be read.
    pub pages: Option<Pages>,
}
