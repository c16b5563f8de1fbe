// Prints types and signatures from the JSON of `deno doc`.

/** A type as TypeScript writes it. */
export function type(node) {
  if (!node) return "unknown";
  const { kind, value } = node;
  switch (kind) {
    case "keyword":
      return value;
    case "literal":
      return literal(value);
    case "typeRef":
      return value.typeName + (value.typeParams?.length ? `<${value.typeParams.map(type).join(", ")}>` : "");
    case "union":
      return value.map(type).join(" | ");
    case "intersection":
      return value.map(type).join(" & ");
    case "array":
      return /[ |&]/.test(type(value)) && value.kind !== "parenthesized" ? `(${type(value)})[]` : `${type(value)}[]`;
    case "tuple":
      return `[${value.map(type).join(", ")}]`;
    case "parenthesized":
      return `(${type(value)})`;
    case "typeOperator":
      return `${value.operator} ${type(value.tsType)}`;
    case "indexedAccess":
      return `${type(value.objType)}[${type(value.indexType)}]`;
    case "optional":
      return `${type(value)}?`;
    case "rest":
      return `...${type(value)}`;
    case "this":
      return "this";
    case "typeQuery":
      return `typeof ${value}`;
    case "typeLiteral":
      return members(value);
    case "fnOrConstructor":
      return `(${value.params.map(parameter).join(", ")}) => ${type(value.tsType)}`;
    default:
      throw new Error(`scripts/reference_types.mjs does not know types of kind "${kind}" yet: ${JSON.stringify(node)}`);
  }
}

function literal(value) {
  if (value.kind === "string") return JSON.stringify(value.string);
  if (value.kind === "template") {
    const part = (part) => (part.kind === "literal" ? part.value.string : `\${${type(part)}}`);
    return `\`${value.tsTypes.map(part).join("")}\``;
  }
  return String(value[value.kind]);
}

function members({ properties = [], methods = [], indexSignatures = [] }) {
  const lines = [
    ...indexSignatures.map(({ params, tsType }) => `[${params.map(parameter).join(", ")}]: ${type(tsType)}`),
    ...properties.map(
      (property) => `${property.readonly ? "readonly " : ""}${labelled(property)}: ${type(property.tsType)}`,
    ),
    ...methods.map((method) => `${method.name}${signature(method)}`),
  ];
  return lines.length === 0 ? "{}" : `{ ${lines.join("; ")} }`;
}

/** A name with its mark if it may be missing. */
export function labelled({ name, optional }) {
  return `${name}${optional ? "?" : ""}`;
}

/** A parameter with its type; one with a default may be missing. */
export function parameter(node) {
  if (node.kind === "assign") return `${node.left.name}?: ${type(node.left.tsType)}`;
  if (node.kind === "rest") return `...${node.arg.name}: ${type(node.tsType ?? node.arg.tsType)}`;
  if (node.kind === "object") return `options${node.optional ? "?" : ""}: ${type(node.tsType)}`;
  return `${labelled(node)}: ${type(node.tsType)}`;
}

/** Type parameters, parameters and result of a function. */
export function signature({ params = [], returnType, typeParams = [] }) {
  const one = ({ name, constraint, default: fallback }) =>
    name + (constraint ? ` extends ${type(constraint)}` : "") + (fallback ? ` = ${type(fallback)}` : "");
  const generics = typeParams.length > 0 ? `<${typeParams.map(one).join(", ")}>` : "";
  return `${generics}(${params.map(parameter).join(", ")}): ${returnType ? type(returnType) : "void"}`;
}
