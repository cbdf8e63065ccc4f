"""Pictures, masks and clips: read and written.

pictures       reads a photograph; writes PNG and GIF; fits pictures to a size, and lays them side by side
masks          reads a mask as what its maker meant
clips          reads a video, an animation or a folder of frames
films          writes an mp4, with the sound of the clip that it is made of
picture_files  opens the files of the three that read
bounds         says how large they may be, before anything is decoded
"""
