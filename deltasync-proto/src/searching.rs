//! A sender that searches its gaps, and what comes of it: a delta to deliver, or one to offer first.

use alloc::boxed::Box;
use alloc::vec::Vec;

use deltasync_core::{ByteLen, Offset, Op, Ops, Script};

use crate::bulk::Prefix;
use crate::context::{Answered, Context};
use crate::delivering::Delivering;
use crate::delivery::{Before, Delivery};
use crate::recalling::{before_remembered, prepare};
use crate::search::{Search, Source};
use crate::sending::{Common, Sending};
use crate::{Answer, Ask, OpenedFile, Phase, RequestId};

/// A search, and what stands before the literals it leaves.
#[derive(Debug)]
pub(crate) struct Searching {
    pub(crate) search: Search,
    /// For a survey: the chunks beside its old gaps. For a remembered basis: none.
    pub(crate) neighbours: Option<Vec<(Offset, ByteLen)>>,
    /// What was found in a tree, while its storage looks for copies of files in that.
    refining: Option<(RequestId, Ops)>,
}

/// With fewer literal bytes no file of a tree is looked for among the others.
const LITERAL_MIN: ByteLen = ByteLen::new(512);

impl Searching {
    pub(crate) fn begin(
        mut common: Common,
        target: OpenedFile,
        script: Script,
        source: Source,
        neighbours: Option<Vec<(Offset, ByteLen)>>,
        cx: &mut Context<'_>,
    ) -> Sending {
        cx.phase(Phase::Matching);
        if target.is_tree() {
            let lacks = script.gaps().map(|gap| (gap.at, gap.len)).collect();
            match common.remembered {
                // Told when the tree is offered: what is sent beside it must not arrive before it.
                Some(_) => common.lacks = lacks,
                None => common.differs(&target, lacks, cx),
            }
        }
        let search = Search::begin(script, source, target.file.clone());
        Box::new(Self { search, neighbours, refining: None }).go_on(common, target, cx)
    }

    pub(crate) fn go_on(mut self: Box<Self>, common: Common, target: OpenedFile, cx: &mut Context<'_>) -> Sending {
        if self.refining.is_some() {
            return Sending::Searching(common, target, self);
        }
        let Some(ops) = self.search.go_on(cx) else { return Sending::Searching(common, target, self) };
        if target.is_tree() && ops.literal_len() >= LITERAL_MIN && ops.copied_len() > ByteLen::ZERO {
            let request = cx.ask(Ask::Refine { file: target.file.clone(), ops: ops.clone() });
            self.refining = Some((request, ops));
            return Sending::Searching(common, target, self);
        }
        self.deliver(ops, common, target, cx)
    }

    /// True for a request of ours that is none of the search.
    pub(crate) fn refines(&self, id: RequestId) -> bool {
        self.refining.as_ref().is_some_and(|(request, _)| *request == id)
    }

    /// Goes on with what the storage has made of the operations; with those that were found where it made nothing.
    pub(crate) fn on_refined(
        mut self: Box<Self>,
        answer: Answered,
        common: Common,
        target: OpenedFile,
        cx: &mut Context<'_>,
    ) -> Sending {
        let Some((_, found)) = self.refining.take() else { return Sending::Searching(common, target, self) };
        let whole = |ops: &Ops| ops.literal_len() + ops.copied_len();
        let ops = match answer {
            Ok(Answer::Refined(ops)) if whole(&ops) == whole(&found) => ops,
            _ => found,
        };
        self.deliver(ops, common, target, cx)
    }

    fn deliver(self: Box<Self>, ops: Ops, common: Common, target: OpenedFile, cx: &mut Context<'_>) -> Sending {
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
