//! A sender that searches its gaps, and what comes of it: a delta to deliver, or one to offer first.

use alloc::boxed::Box;
use alloc::vec::Vec;

use deltasync_core::{ByteLen, Offset, Op, Script};

use crate::bulk::Prefix;
use crate::context::Context;
use crate::delivering::Delivering;
use crate::delivery::{Before, Delivery};
use crate::recalling::{before_remembered, prepare};
use crate::search::{Search, Source};
use crate::sending::{Common, Sending};
use crate::{EventKind, OpenedFile, Phase};

/// A search, and what stands before the literals it leaves.
#[derive(Debug)]
pub(crate) struct Searching {
    pub(crate) search: Search,
    /// For a survey: the chunks beside its old gaps. For a remembered basis: none.
    pub(crate) neighbours: Option<Vec<(Offset, ByteLen)>>,
}

impl Searching {
    pub(crate) fn begin(
        common: Common,
        target: OpenedFile,
        script: Script,
        source: Source,
        neighbours: Option<Vec<(Offset, ByteLen)>>,
        cx: &mut Context<'_>,
    ) -> Sending {
        cx.phase(Phase::Matching);
        if target.is_tree() {
            let ranges = script.gaps().map(|gap| (gap.at, gap.len)).collect();
            let presumed = common.remembered.is_some();
            cx.event(EventKind::Differs { tree: target.file.clone(), ranges, presumed });
        }
        let search = Search::begin(script, source, target.file.clone());
        Box::new(Self { search, neighbours }).go_on(common, target, cx)
    }

    pub(crate) fn go_on(mut self: Box<Self>, common: Common, target: OpenedFile, cx: &mut Context<'_>) -> Sending {
        let Some(ops) = self.search.go_on(cx) else { return Sending::Searching(common, target, self) };
        let file = target.file.clone();
        match self.neighbours {
            Some(ranges) => {
                let before = |_: &[Op]| Some(Before { prefix: Prefix::Neighbours, file: file.clone(), ranges });
                let delivery = Delivery::packed(file.clone(), ops, None, before, cx);
                Delivering::begin(common, target, delivery, cx)
            }
            None => {
                let remembered = common.remembered.as_ref();
                let before = |first: &[Op]| before_remembered(first, remembered?, &file);
                let delivery = Delivery::packed(file.clone(), ops, None, before, cx);
                prepare(common, target, Box::new(delivery), cx)
            }
        }
    }
}
