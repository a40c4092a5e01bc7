/**
 * The table of all settings: of each its flag and `TIDEMARK_*` variable, kind, default and sentence, and the rules between
 * settings. Each group stands in a file of settings/. Help, docs/configuration.md and the type `Config` are made from
 * this table.
 *
 * A flag that tusd has too bears tusd's name. Defaults are written as a user would write them, and parsed alike.
 */
import { accessRules, accessSettings } from './settings/access.ts'
import { hookRules, hookSettings } from './settings/hooks.ts'
import { listeningRules, listeningSettings } from './settings/listening.ts'
import { loggingSettings } from './settings/logging.ts'
import { metricsRules, metricsSettings } from './settings/metrics.ts'
import { paceSettings } from './settings/pace.ts'
import { pageSettings } from './settings/pages.ts'
import { pathRules } from './settings/paths.ts'
import { quotaSettings } from './settings/quotas.ts'
import { serverRules, serverSettings, workerSettings } from './settings/servers.ts'
import type { Setting } from './settings/setting.ts'
import { uploadRules, uploadSettings } from './settings/uploads.ts'

/** In the order of help and document. */
export const settings = {
  ...listeningSettings,
  ...uploadSettings,
  ...quotaSettings,
  ...accessSettings,
  ...paceSettings,
  ...serverSettings,
  ...workerSettings,
  ...pageSettings,
  ...hookSettings,
  ...loggingSettings,
  ...metricsSettings,
} as const

type Settings = typeof settings
export type SettingKey = keyof Settings
type ValueOf<S> = S extends Setting<infer T> ? T : never

/** Every setting, parsed. Units are in the names; what is empty in text is undefined here. */
export type Config = { readonly [K in SettingKey]: ValueOf<Settings[K]> }

export const variableOf = (flagName: string): string =>
  `TIDEMARK_${flagName.toUpperCase().replaceAll('-', '_')}`

/** What a rule looks at: the values, whether the user gave a setting, and how a setting is named to this user. */
export interface Given {
  readonly config: Config
  isGiven(key: SettingKey): boolean
  name(key: SettingKey): string
}

export interface Rule {
  readonly setting: SettingKey
  readonly breaks: (given: Given) => boolean
  readonly says: (given: Given) => string
}

/**
 * A rule is broken when its setting was given and `breaks` says so; the first broken one is told. Nothing that was asked
 * for is silently ignored.
 */
export const rules: readonly Rule[] = [
  ...hookRules,
  ...listeningRules,
  ...pathRules,
  ...uploadRules,
  ...serverRules,
  ...metricsRules,
  ...accessRules,
]
