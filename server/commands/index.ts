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

const commands: Readonly<Record<string, Command>> = {
  events: () => import('./events.ts'),
  tokens: () => import('./tokens.ts'),
}

/** The command that arguments name; undefined where a server is asked for. */
export function commandOf(argv: readonly string[]): Command | undefined {
  const [name] = argv
  return name !== undefined && Object.hasOwn(commands, name) ? commands[name] : undefined
}
