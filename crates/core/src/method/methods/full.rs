use super::super::spec::{BudgetKind, MethodSpec, Role, Stage};

pub(super) const SPEC: MethodSpec = MethodSpec {
    name: "full",
    title: "Full cache",
    summary: "keeps every entry",
    source: "",
    page: "The plain cache: every position of prompt and answer is kept in every layer. It is the default, and what all other methods are compared with.\n",
    budget: BudgetKind::Outcome,
    role: Role::Chooses,
    options: &[],
    variants: &[],
    build: |_| Ok(Stage::Nothing),
};
