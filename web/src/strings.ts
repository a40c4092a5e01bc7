/** Where Uppy's own words do not say what happens here. */
export const strings = {
  dashboardTitle: 'Upload files',
  dropPasteBoth: 'Drop files here, %{browseFiles} or %{browseFolders}',
  browseFiles: 'choose files',
  browseFolders: 'choose a folder',
  sessionRestored: 'Welcome back',
  recoveredAllFiles: 'Your files are still here. Press Upload and they go on where they stopped.',
  recoveredXFiles: {
    0: 'Choose the same file again and the upload goes on where it stopped.',
    1: 'Choose the same %{smart_count} files again and their uploads go on where they stopped.',
  },
  reSelect: 'Choose again',
  noInternetConnection: 'This device is offline',
  connectedToInternet: 'This device is online again',
}
