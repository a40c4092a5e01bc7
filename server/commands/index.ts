/**
 * What the program does beside serving: `tidemark <command> ...`. Each command is loaded when it is asked for; it is
 * given arguments, variables and a place for words, and answers the exit code of the process.
 */
export interface Terminal {
  readonly env: Readonly<Record<string, string | undefined>>
  /** What was asked for. */
  out(text: string): void
  /** What is said about it. */
  err(text: string): void
}

interface CommandModule {
  /** 0 done; 1 failed; 2 wrong arguments. */
  run(argv: readonly string[], terminal: Terminal): Promise<number>
}

export type Command = () => Promise<CommandModule>

const commands = {
  events: () => import('./events.ts'),
  tokens: () => import('./tokens.ts'),
} as const satisfies Readonly<Record<string, Command>>

/** What each is for; it says more of itself when it is asked with --help. */
export const commandWords: Readonly<Record<keyof typeof commands, string>> = {
  events: 'Lists events that no hook took in the end, shows them, sends them again or drops them.',
  tokens: 'Makes API tokens for --auth tokens, lists them, and takes them back.',
}

/** The command that arguments name; undefined where a server is asked for. */
export function commandOf(argv: readonly string[]): Command | undefined {
  const [name] = argv
  return name !== undefined && Object.hasOwn(commands, name)
    ? commands[name as keyof typeof commands]
    : undefined
}
