"""Small tools around the operating system; they know nothing of models.

Devices and threads, files and folders, standard streams and shell commands.
"""
