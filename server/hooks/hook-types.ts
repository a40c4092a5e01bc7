/** The hooks that there are, by the names that tusd gave them; `pre-access` is ours. And how one of them fails. */

export const hookTypes = [
  'pre-access',
  'pre-create',
  'post-create',
  'post-receive',
  'pre-finish',
  'post-finish',
  'pre-terminate',
  'post-terminate',
] as const

export type HookType = (typeof hookTypes)[number]

/** As with tusd: what may hold a request up is only asked when somebody wants it, but for the creation. */
export const defaultHookTypes: readonly HookType[] = [
  'pre-create',
  'post-create',
  'post-receive',
  'post-terminate',
  'post-finish',
]

/** A hook that could not be asked, or gave an answer that can not be used. */
export class HookError extends Error {
  /** Whether the same question may be answered a moment later. */
  readonly isPassing: boolean

  constructor(message: string, { isPassing = false, cause }: { isPassing?: boolean; cause?: unknown } = {}) {
    super(message, { cause })
    this.name = 'HookError'
    this.isPassing = isPassing
  }
}

/** One question to a hook, or one event that it is told. */
export interface HookCall {
  readonly type: HookType
  /** The same for every attempt. */
  readonly id: string
  /** The payload as JSON. */
  readonly body: string
  /** Headers of the request that are handed on. */
  readonly headers: Readonly<Record<string, string>>
  /** What programs find in their environment. */
  readonly upload: { readonly id: string; readonly size: number; readonly offset: number }
  readonly signal: AbortSignal
}

/** A way to hooks. Fails with a `HookError`. */
export interface HookCaller {
  /** Asks, and gives the answer as text: JSON, or nothing where there is no such hook. */
  ask(call: HookCall): Promise<string>
  /** Tells; what is answered does not matter, only that it was taken. */
  tell(call: HookCall): Promise<void>
  close(): Promise<void>
}
