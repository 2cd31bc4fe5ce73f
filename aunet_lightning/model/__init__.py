"""The network: plain torch modules, with every state passed as an argument."""
