/** What the slots of an extent hold. */
export const ExtentKind = { full: 0, delta: 1 } as const;
export type ExtentKind = (typeof ExtentKind)[keyof typeof ExtentKind];
