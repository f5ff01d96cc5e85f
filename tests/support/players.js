// One face over three players: window.sg, made by window.begin(name, url).
const watch = video => {
  const seen = { stalled: 0, problems: [] };
  let last = 0, since = performance.now(), heights = new Set();
  setInterval(() => {
    const now = performance.now();
    if (video.paused || video.ended || Math.abs(video.currentTime - last) > 0.01) { last = video.currentTime; since = now; }
    else seen.stalled = Math.max(seen.stalled, (now - since) / 1000);
  }, 50);
  return seen;
};

const hlsjs = async (video, url, seen) => {
  const hls = new Hls({ maxBufferLength: 6, maxMaxBufferLength: 6, startLevel: 0 });
  hls.on(Hls.Events.ERROR, (_, data) => {
    // A stall is measured; "aborted" is a request that the player itself gave up for another.
    if (data.fatal || !/bufferStalled|nudge|^aborted$/i.test(data.details)) seen.problems.push(`${data.details} ${data.response?.code ?? ''}`);
  });
  await new Promise((resolve, reject) => {
    hls.on(Hls.Events.MANIFEST_PARSED, resolve);
    hls.on(Hls.Events.ERROR, (_, data) => data.fatal && reject(new Error(data.details)));
    hls.loadSource(url);
    hls.attachMedia(video);
  });
  return {
    heights: () => hls.levels.map(level => level.height),
    height: wanted => { hls.nextLevel = hls.levels.findIndex(level => level.height === wanted); },
    languages: () => hls.audioTracks.map(track => track.lang),
    language: wanted => { hls.audioTrack = hls.audioTracks.findIndex(track => track.lang === wanted); },
    speaking: () => hls.audioTracks[hls.audioTrack]?.lang,
    captions: wanted => { hls.subtitleDisplay = true; hls.subtitleTrack = hls.subtitleTracks.findIndex(t => t.lang === wanted); },
  };
};

const dash = async (video, url, seen) => {
  const player = dashjs.MediaPlayer().create();
  // Little is kept behind and ahead, so that a switch shows soon without throwing away what plays now.
  player.updateSettings({ streaming: { buffer: {
    fastSwitchEnabled: true, bufferTimeDefault: 6, bufferTimeAtTopQuality: 6,
    bufferToKeep: 1, bufferAheadToKeep: 8, bufferPruningInterval: 1,
  } } });
  player.on('error', event => seen.problems.push(String(event.error?.message ?? event.error)));
  player.initialize(video, url, true);
  await new Promise(resolve => player.on('canPlay', resolve));
  return {
    heights: () => player.getRepresentationsByType('video').map(r => r.height),
    height: wanted => {
      player.updateSettings({ streaming: { abr: { autoSwitchBitrate: { video: false } } } });
      player.setRepresentationForTypeById('video', player.getRepresentationsByType('video').find(r => r.height === wanted).id);
    },
    languages: () => player.getTracksFor('audio').map(track => track.lang),
    language: wanted => player.setCurrentTrack(player.getTracksFor('audio').find(track => track.lang === wanted)),
    speaking: () => player.getCurrentTrackFor('audio')?.lang,
    captions: wanted => { player.setTextTrack(player.getTracksFor('text').findIndex(t => t.lang === wanted)); player.enableText(true); },
  };
};

const shakaPlayer = async (video, url, seen) => {
  shaka.polyfill.installAll();
  const player = new shaka.Player();
  await player.attach(video);
  player.addEventListener('error', event => seen.problems.push(`${event.detail.category}/${event.detail.code}`));
  player.configure({ streaming: { bufferingGoal: 6, rebufferingGoal: 1 } });
  await player.load(url);
  return {
    heights: () => player.getVideoTracks().map(track => track.height),
    height: wanted => {
      player.configure({ abr: { enabled: false } });
      player.selectVideoTrack(player.getVideoTracks().find(track => track.height === wanted), true);
    },
    languages: () => player.getAudioTracks().map(track => track.language),
    language: wanted => player.selectAudioTrack(player.getAudioTracks().find(track => track.language === wanted)),
    speaking: () => player.getAudioTracks().find(track => track.active)?.language,
    captions: wanted => player.selectTextTrack(player.getTextTracks().find(track => track.language === wanted)),
    thumbnail: async (vtt, time) => {
      const track = await player.addThumbnailsTrack(vtt);
      const found = await player.getThumbnails(track.id, time);
      return { x: found.positionX, y: found.positionY, width: found.width, height: found.height, uri: found.uris[0] };
    },
  };
};

window.begin = async (name, url) => {
  const video = document.getElementById('v');
  const seen = watch(video);
  window.seen = seen;
  window.sg = await { 'hls.js': hlsjs, 'dash.js': dash, Shaka: shakaPlayer }[name](video, url, seen);
  await video.play();
};
