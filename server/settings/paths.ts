/**
 * Which paths are whose, where settings would give one to two: uploads go first where they could be meant. And the rules
 * by which nothing that was asked for gives way unseen.
 */
import type { Config, Rule } from '../settings.ts'

const uploadsApiPath = '/uploads'

/** Uploads go first where they could be meant. */
function hasRoomForUploadsApi({
  basePath,
  uploadPath = '',
}: Pick<Config, 'basePath' | 'uploadPath'>): boolean {
  const isPlain = uploadPath === uploadsApiPath || uploadPath.startsWith(`${uploadsApiPath}/`)
  return basePath !== '/' && basePath !== `${uploadsApiPath}/` && !isPlain
}

export function hasUploadsApi(config: Pick<Config, 'uploadsApi' | 'basePath' | 'uploadPath'>): boolean {
  return config.uploadsApi !== 'off' && hasRoomForUploadsApi(config)
}

/** Where forms and plain files go; undefined where that is switched off, or would be in the way of the uploads themselves. */
export function plainPathOf({
  uploadPath,
  basePath,
}: Pick<Config, 'uploadPath' | 'basePath'>): string | undefined {
  if (uploadPath === undefined) return undefined
  const plain = `${uploadPath}/`
  return plain.startsWith(basePath) || basePath.startsWith(plain) ? undefined : uploadPath
}

export const pathRules: readonly Rule[] = [
  {
    setting: 'basePath',
    breaks: ({ config }) => config.basePath === '/' && config.showPage,
    says: () => 'can not be / while the upload page is served there; add --show-page=false',
  },
  {
    setting: 'uploadsApi',
    breaks: ({ config }) => config.uploadsApi !== 'off' && !hasRoomForUploadsApi(config),
    says: ({ config, name }) =>
      `has no effect while ${name(config.uploadPath?.startsWith(uploadsApiPath) ? 'uploadPath' : 'basePath')} has that place; set it to off`,
  },
  {
    setting: 'uploadPath',
    breaks: ({ config }) => config.uploadPath !== undefined && plainPathOf(config) === undefined,
    says: ({ name }) => `must not be below ${name('basePath')}, nor above it`,
  },
]
