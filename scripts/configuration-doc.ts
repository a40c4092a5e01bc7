/**
 * Writes docs/configuration.md from the table of settings: `npx tsx scripts/configuration-doc.ts`. A test compares the
 * file with what this would write.
 */
import { writeFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import { defaultOf, settingGroups } from '../server/help.ts'
import { variableOf } from '../server/settings.ts'

export const documentPath = new URL('../docs/configuration.md', import.meta.url)

export function configurationDocument(): string {
  const sections = settingGroups().map(([group, members]) => {
    const rows = members.map((setting) => {
      const cells = [
        `\`--${setting.flag}\`<br>\`${variableOf(setting.flag)}\``,
        `\`${setting.kind.takes}\``,
        setting.default === '' ? defaultOf(setting) : `\`${setting.default}\``,
        setting.sentence,
      ]
      return `| ${cells.map((cell) => cell.replaceAll('|', '\\|').replace(/(?<!`)\*/g, '\\*')).join(' | ')} |\n`
    })
    return `## ${group}\n\n| setting | takes | default | what it does |\n|---|---|---|---|\n${rows.join('')}`
  })
  return `# Configuration

<!-- Written by scripts/configuration-doc.ts from server/settings/. Change the settings there, and run it. -->

Every setting is a flag (\`--port 8080\`, \`--port=8080\`; \`-port 8080\` as with tusd works too) or a variable
(\`TIDEMARK_PORT=8080\`). A flag wins over its variable, the variable over the default. A variable that is empty counts
as not set. Flags that tusd has too bear the same names.

- Durations carry their unit: \`500ms\`, \`20s\`, \`5m\`, \`1h30m\`, \`7d\`. A bare number is refused, except \`0\`.
- Sizes are bytes, or carry a unit: \`10MiB\` is 10 x 1024 x 1024, \`5GB\` is 5 x 1000 x 1000 x 1000.
- Switches are \`--behind-proxy\`, \`--behind-proxy=false\`; variables take \`true\` and \`false\`.

A value that can not be used, a flag or \`TIDEMARK_\` variable that is not known, and settings that contradict each
other stop the start with one sentence on stderr and exit code 2. A folder, port or Redis that can not be used at
start: one sentence and exit code 1. SIGTERM and SIGINT end running requests, keep what they sent, and exit with 0; a
second signal exits at once with 1, and so does a server that could not end in time. Until a server has its folder it has nothing
to put in order, and ends by the signal.

${sections.join('\n')}`
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  writeFileSync(documentPath, configurationDocument())
}
