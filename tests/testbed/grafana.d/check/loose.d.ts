// The same type with each string enum as its values, as JSON has them.
export type Loose<T> = T extends string ? `${T}` : T extends (infer U)[] ? Loose<U>[] : T extends object ? { [K in keyof T]: Loose<T[K]> } : T;
// The same with what Grafana fills in left out, at any depth.
export type Some<T> = T extends string ? `${T}` : T extends (infer U)[] ? Some<U>[] : T extends object ? { [K in keyof T]?: Some<T[K]> } : T;
