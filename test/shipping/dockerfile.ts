// Enough of a Dockerfile for the tests to do what it says: its stages, and the instructions of each in order.

type Instruction = { name: string; words: string }
export type Stage = { name: string | undefined; instructions: Instruction[] }

export function parseDockerfile(text: string): Stage[] {
  const lines = text
    .split('\n')
    .filter((line) => !/^\s*#/.test(line))
    .join('\n')
    .replace(/\\\n\s*/g, ' ')
    .split('\n')
  const stages: Stage[] = []
  for (const line of lines) {
    const [, name, words] = line.match(/^([A-Z]+)\s+(.*)$/) ?? []
    if (name === undefined || words === undefined) continue
    if (name === 'FROM') stages.push({ name: words.match(/ AS (\S+)$/)?.[1], instructions: [] })
    else stages.at(-1)?.instructions.push({ name, words })
  }
  return stages
}

/** All of them that bear this name, without flags like `--mount=...`; `from` is the stage that `--from` names. */
export function instructionsOf(stage: Stage, name: string): { from: string | undefined; words: string }[] {
  return stage.instructions
    .filter((instruction) => instruction.name === name)
    .map(({ words }) => ({
      from: words.match(/^--from=(\S+)/)?.[1],
      words: words.replace(/^(?:--\S+\s+)+/, ''),
    }))
}

/** What is copied, and where to. */
export function copiesOf(stage: Stage): { from: string | undefined; sources: string[]; target: string }[] {
  return instructionsOf(stage, 'COPY').map(({ from, words }) => {
    const paths = words.split(/\s+/)
    return { from, sources: paths.slice(0, -1), target: paths.at(-1)! }
  })
}

/** `ENV a=1 b=2`, as variables. */
export function variablesOf(stage: Stage): Record<string, string> {
  const pairs = instructionsOf(stage, 'ENV').flatMap(({ words }) => words.split(/\s+/))
  return Object.fromEntries(pairs.map((pair) => pair.split('=', 2) as [string, string]))
}

/** The words of an instruction in exec form; undefined where a shell would read it. */
export function execForm(words: string | undefined): string[] | undefined {
  const list = words?.match(/\[.*\]$/)?.[0]
  return list === undefined ? undefined : (JSON.parse(list) as string[])
}
